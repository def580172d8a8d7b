"""Resolvers of the deliverer: a name is judged by the addresses that it resolves to at the moment of the connection.

`GuardedResolver` asks the egress policy about each address, and the client connects to exactly those that are left, so
a name cannot change between the check and the connection. URLs were judged before, by `kapsel_egress.verdicts`: a
client never asks a resolver for an IP literal.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from kapsel_deliverer.errors import AddressDeniedError
from kapsel_egress.verdicts import Denied, check_address
from kapsel_store.rows import RelayRow

_RESOLVER_THREADS: Final = 16  # so many names may hang in DNS before others wait for them


class GuardedResolver(AbstractResolver):
    """Resolves by `inner` and keeps back every address that the policy denies."""

    def __init__(self, inner: AbstractResolver, relay: RelayRow) -> None:
        self._inner = inner
        self._relay = relay

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the allowed addresses of a name; raise AddressDeniedError if it has denied ones alone."""
        allowed: list[ResolveResult] = []
        refusal: Denied | None = None
        for result in await self._inner.resolve(host, port, family):
            denied = check_address(ip_address(result["host"]), self._relay)
            if denied is None:
                allowed.append(result)
            else:
                refusal = denied
        if not allowed and refusal is not None:
            raise AddressDeniedError(refusal)
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class Borrowed(AbstractResolver):
    """A resolver that outlives the client that uses it."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return what it says."""
        return await self._inner.resolve(host, port, family)

    async def close(self) -> None:
        """Leave it open."""


class SystemResolver(AbstractResolver):
    """The system's resolver on threads of its own: the event loop's few would all be lost to names that hang."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return what getaddrinfo says."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        )
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=_host(address), port=port, family=kind, proto=proto, flags=numeric)
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _host(address: tuple[Any, ...]) -> str:
    """Return the host of a socket address, with the zone of a link-local one so that the policy sees it."""
    host: str = address[0]
    return f"{host}%{address[3]}" if len(address) > 3 and address[3] and "%" not in host else host

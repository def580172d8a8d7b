"""The guard of the deliverer: a name is judged by the addresses that it resolves to at the moment of the connection.

`GuardedResolver` asks the egress policy about each address, and the client connects to exactly those that are left, so
a name cannot change between the check and the connection. What it resolves to is found by `names`. URLs were judged
before, by `kapsel_egress.verdicts`: a client never asks a resolver for an IP literal.
"""

import socket
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from kapsel_deliverer.errors import AddressDeniedError
from kapsel_egress.verdicts import Denied, check_address
from kapsel_store.rows import RelayRow


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

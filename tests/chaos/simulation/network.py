"""The network of a run: who listens where, as socket pairs."""

import asyncio
import contextvars
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohappyeyeballs

from kapsel_receiver.connection import Server as WebhookServer
from simulation.clock import LIFE
from simulation.loop import Life, Loop, outside

Dial = Callable[[Life | None], Awaitable[socket.socket]]


class _Bound:
    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.family = socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        return self._address


class _Listening(asyncio.AbstractServer):
    """What create_server gives back."""

    def __init__(self, network: "Network", address: tuple[str, int]) -> None:
        self._network = network
        self._address = address
        self.sockets = (_Bound(address),)

    def close(self) -> None:
        self._network.forget(self._address)

    async def wait_closed(self) -> None:
        pass

    def is_serving(self) -> bool:
        return self._address in self._network.hosts


class Network:
    """Hosts by address; destinations are put here by the run, servers by who listens."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.hosts: dict[tuple[str, int], Dial] = {}
        self.receivers: dict[tuple[str, int], Life] = {}  # where webhooks are taken
        self._port = 20000
        loop.network = self
        aiohappyeyeballs.start_connection = self._start_connection

    async def _start_connection(self, addr_infos: Any, **_: Any) -> socket.socket:
        return await self.dial(tuple(addr_infos[0][4][:2]))

    async def dial(self, address: tuple[str, int]) -> socket.socket:
        dial = self.hosts.get(address)
        if dial is None:
            raise ConnectionRefusedError(111, f"nobody listens at {address}")
        return await dial(LIFE.get(None))

    def listen(self, life: Life | None, protocol_factory: Any, host: str) -> _Listening:
        self._port += 1
        address = (host, self._port)
        context = contextvars.copy_context()

        async def accept(_: Life | None) -> socket.socket:
            near, far = pair()
            context.copy().run(self.loop._make_socket_transport, far, protocol_factory())
            return near

        self.hosts[address] = accept
        if isinstance(protocol_factory, WebhookServer) and life is not None:
            self.receivers[address] = life
        if life is not None:
            life.on_death.append(lambda: self.forget(address))
        return _Listening(self, address)

    def forget(self, address: tuple[str, int]) -> None:
        self.hosts.pop(address, None)
        self.receivers.pop(address, None)

    def serve(self, sock: socket.socket, handle: Callable[[Any, Any], Awaitable[None]]) -> None:
        """Serve one end of a pair with a handler of streams, outside of every life."""

        def begin() -> None:
            reader = asyncio.StreamReader(limit=2**22, loop=self.loop)
            protocol = asyncio.StreamReaderProtocol(reader, handle, loop=self.loop)
            self.loop._make_socket_transport(sock, protocol)

        outside(begin)


def pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far

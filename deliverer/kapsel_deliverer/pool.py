"""Connections under one egress policy: makes them, lends them to one request at a time, keeps them for the next one.

The sender calls `request`. aiohttp's connector resolves under the guard, connects, tunnels and speaks TLS, and hands
the transport over; its own pool and protocol take more time than all the rest of a try together (ADR 10).
"""

import asyncio
import math
from typing import Final

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection

from kapsel_deliverer.errors import BadResponseError, DisconnectedError
from kapsel_deliverer.exchange import Response
from kapsel_deliverer.wire import Wire

IDLE_TIMEOUT: Final = 4.0  # seconds a connection is kept unused: below the 5 s after which many servers close it


class Deadlines:
    """Ends what takes too long.

    What may take equally long ends in the order in which it began, so one timer watches the first of each such line,
    and as nearly all ends before, the timer is hardly ever set.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: dict[float, dict[Wire, float]] = {}  # by timeout
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def add(self, wire: Wire, timeout: float) -> None:
        """Have a wire expire after `timeout` seconds."""
        at = self._loop.time() + timeout
        self._lines.setdefault(timeout, {})[wire] = at
        if at < self._at:
            self._set(at)

    def remove(self, wire: Wire, timeout: float) -> None:
        """It is over, in time or not."""
        line = self._lines[timeout]
        del line[wire]
        if not line:
            del self._lines[timeout]

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, at: float) -> None:
        self.stop()
        self._timer, self._at = self._loop.call_at(at, self._look), at

    def _look(self) -> None:
        now, self._at = self._loop.time(), math.inf
        for line in self._lines.values():
            for wire, at in line.items():
                if at > now:
                    self._at = min(self._at, at)
                    break
                wire.expire()
        if self._at < math.inf:
            self._set(self._at)


class Pool:
    """Closed when it is retired and its last request has ended."""

    def __init__(self, connector: aiohttp.BaseConnector, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self._connector = connector
        self._idle_timeout = idle_timeout
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._connections: dict[Wire, tuple[ConnectionKey, Connection]] = {}
        self._idle: dict[ConnectionKey, dict[Wire, float]] = {}  # since when, the newest last
        self._sweeping: asyncio.TimerHandle | None = None
        self._users = 0
        self._retired = False
        self._unused = asyncio.Event()

    async def request(
        self, request: ClientRequest, head: bytes, body: bytes, timeout: aiohttp.ClientTimeout
    ) -> Response:
        """Send and wait for the response, in all as long as the timeout allows.

        Raises what `Wire.ask` says, or while there is no connection aiohttp.ClientError, OSError or TimeoutError.
        """
        key, left = request.connection_key, timeout.total or math.inf
        self._users += 1
        wire = self._take(key)
        try:
            if wire is None:
                begun = self._loop.time()
                wire = await self._connect(key, request, timeout)
                left -= self._loop.time() - begun
            self._deadlines.add(wire, left)
            response = await wire.ask(head, body)
            if wire.reusable and not self._retired:
                self._keep(key, wire)
            else:
                self._break_off(wire)
        except BaseException:
            if wire is not None:
                self._break_off(wire)
            raise
        finally:
            if wire is not None:
                self._deadlines.remove(wire, left)
            self._users -= 1
            if self._retired and not self._users:
                self._unused.set()
        return response

    async def close(self) -> None:
        """Let the requests under way end, and begin no more."""
        self._retired = True
        for wires in list(self._idle.values()):
            for wire in list(wires):
                self._break_off(wire)
        if self._users:
            await self._unused.wait()
        for wire in list(self._connections):
            self._break_off(wire)
        self._deadlines.stop()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._connector.close()

    async def _connect(self, key: ConnectionKey, request: ClientRequest, timeout: aiohttp.ClientTimeout) -> Wire:
        connection = await self._connector.connect(request, [], timeout)
        transport, protocol = connection.transport, connection.protocol
        if transport is None or protocol is None:
            connection.close()
            raise DisconnectedError
        if protocol.should_close:
            connection.close()
            raise BadResponseError("the server spoke before it was asked")
        wire = Wire(transport, self._forget)
        self._connections[wire] = key, connection
        return wire

    def _take(self, key: ConnectionKey) -> Wire | None:
        """Return a connection that can be used once more: the one that is idle longest, so that all are kept warm."""
        idle = self._idle.get(key)
        oldest = self._loop.time() - self._idle_timeout
        while idle:
            wire = next(iter(idle))
            since = idle.pop(wire)
            if since >= oldest and wire.is_open:
                return wire
            self._break_off(wire)
        return None

    def _keep(self, key: ConnectionKey, wire: Wire) -> None:
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = {}
        idle[wire] = self._loop.time()
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._idle_timeout, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle too long."""
        oldest = self._loop.time() - self._idle_timeout
        for wire in [wire for idle in self._idle.values() for wire, since in idle.items() if since <= oldest]:
            wire.close()
            self._forget(wire)
        self._idle = {key: idle for key, idle in self._idle.items() if idle}
        self._sweeping = self._loop.call_later(self._idle_timeout / 4, self._sweep) if self._idle else None

    def _break_off(self, wire: Wire) -> None:
        wire.abort()
        self._forget(wire)

    def _forget(self, wire: Wire) -> None:
        """A connection has ended, maybe while it was idle."""
        known = self._connections.pop(wire, None)
        if known is not None:
            key, connection = known
            self._idle.get(key, {}).pop(wire, None)
            connection.close()  # the connector counts what it has made

"""Heartbeats: which process is alive, where its metrics are, and which generation of the configuration it runs."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from kapsel_runtime.waiting import until
from kapsel_store.configuration import Source
from kapsel_store.database import Connection, Pool, is_away
from kapsel_store.queries import statement
from kapsel_store.rows import Component

INTERVAL = 2.0
MOST_WAITING = 1000  # destinations that one process tells of


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process that was alive within the last ten seconds."""

    component: Component
    instance: str
    address: str  # http://host:port of its health server
    generation: int
    started_at: datetime
    seen_at: datetime


async def report(
    connection: Connection,
    component: Component,
    instance: str,
    address: str,
    generation: int,
    waiting: Sequence[UUID] = (),
) -> None:
    """Say that this process is alive, which generation it runs, and which destinations wait for a place in it."""
    await connection.execute(statement("processes.report"), component, instance, address, generation, waiting)


async def leave(connection: Connection, component: Component, instance: str) -> None:
    """Say that this process has stopped, so that nobody counts on it for the seconds until its row is too old."""
    await connection.execute(statement("processes.leave"), component, instance)


async def list_live(connection: Connection) -> list[ProcessRow]:
    """Return all processes that are alive."""
    return [ProcessRow(**dict(row)) for row in await connection.fetch(statement("processes.list_live"))]


async def try_supervise(connection: Connection) -> bool:
    """Become the only `kapsel up` of this schema for as long as this connection lives; False if another one is."""
    return bool(await connection.fetchval(statement("processes.try_supervise")))


class Heartbeat:
    """Reports one process until it stops."""

    def __init__(
        self,
        pool: Pool,
        component: Component,
        instance: str,
        address: str,
        source: Source,
        waiting: Callable[[], Sequence[UUID]] = tuple,
    ) -> None:
        self._pool = pool
        self._component = component
        self._instance = instance
        self._address = address
        self._source = source
        self._waiting = waiting

    async def run(self, stopping: asyncio.Event) -> None:
        """Report every two seconds, and at once when a configuration is loaded."""
        loaded = asyncio.Event()
        self._source.subscribe(lambda _: loaded.set())
        while not stopping.is_set():
            loaded.clear()
            await self._beat()
            await until(stopping, loaded, timeout=INTERVAL)
        with suppress(Exception):  # the row ages out by itself when this fails
            async with self._pool.acquire(timeout=1) as connection:
                await leave(connection, self._component, self._instance)

    async def _beat(self) -> None:
        try:
            async with self._pool.acquire(timeout=5) as connection:
                generation = self._source.current.generation
                waiting = self._waiting()[:MOST_WAITING]
                await report(connection, self._component, self._instance, self._address, generation, waiting)
        except Exception as error:
            if not is_away(error):
                raise

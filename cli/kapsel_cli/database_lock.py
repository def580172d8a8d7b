"""Keeps a second `kapsel up` away from the same database, wherever it runs.

Called by the supervisor. The lock belongs to one connection; when that is lost it is taken again, and whoever finds it
taken then gives way.
"""

import asyncio
import random
from types import TracebackType
from typing import Final, Self

import asyncpg

from kapsel_cli.errors import DataInUseError
from kapsel_runtime.backoff import delays
from kapsel_store import processes
from kapsel_store.database import CONNECT_TIMEOUT, is_away, settings

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 2.0


class DatabaseLock:
    """An advisory lock on the schema, for as long as the context lasts."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema
        self._lost = asyncio.Event()
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> Self:
        await self._take()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def keep(self) -> None:
        """Take the lock again whenever its connection is lost; raise DataInUseError if somebody else was faster."""
        while True:
            await self._lost.wait()
            waits = delays(FIRST_DELAY, LONGEST_DELAY, random.Random())  # noqa: S311 - jitter, not a secret
            while self._lost.is_set():
                try:
                    await self._take()
                except Exception as error:
                    if not is_away(error):
                        raise
                    await asyncio.sleep(next(waits))

    async def _take(self) -> None:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT,
            server_settings=settings(schema=self._schema, role=None, component="up-lock"),
        )
        try:
            taken = await processes.try_supervise(connection)
        except BaseException:
            connection.terminate()  # it may hold the lock, and the next try would find it taken
            raise
        if not taken:
            connection.terminate()
            raise DataInUseError(
                "another kapsel up runs on this database",
                "Stop that one first, or give this one a database of its own",
            )
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        self._connection = connection

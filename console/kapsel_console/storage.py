"""Connections for handlers: each has a deadline, and a database that is away becomes a problem the caller is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from kapsel_console.errors import ProblemError
from kapsel_store.database import Connection, Pool, is_away

ACQUIRE_TIMEOUT: Final = 3.0  # seconds, also for connecting
AWAY_RETRY: Final = 2


class Storage:
    """The pool of one console."""

    def __init__(self, pool: Pool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for one request; raise ProblemError if there is none, or if the time is over."""
        async with asyncio.timeout(self._timeout) as deadline:
            try:
                async with self._pool.acquire(timeout=min(ACQUIRE_TIMEOUT, self._timeout / 2)) as connection:
                    yield connection
            except asyncio.CancelledError:
                if not deadline.expired():
                    raise
                raise ProblemError(
                    "query_timeout",
                    f"the database did not answer within {self._timeout:g} s; ask for less, for example with since=15m",
                    retry_after=AWAY_RETRY,
                ) from None
            except Exception as error:
                if not is_away(error):
                    raise
                raise ProblemError(
                    "storage_unavailable",
                    "the database is away or has no connection left; try again",
                    retry_after=AWAY_RETRY,
                ) from error

"""Hints to the deliverers that something is due: one NOTIFY for many commits, and never in the way of an answer.

`intake` calls `tell` after each commit. The notification goes out on a connection of its own, because a transaction
that notifies takes a lock that all such transactions of the server wait for. A hint that is lost costs the deliverers
one poll.
"""

import asyncio
from typing import Final

from kapsel_store.database import DELIVERIES_CHANNEL, Connection, Pool, is_away
from kapsel_store.hints import hint

PAUSE: Final = 0.001  # seconds between hints: a single webhook goes out at once
BUSY_PAUSE: Final = 0.01  # while many come: deliverers have their hands full, and each hint costs as much as a commit
BUSY: Final = 4  # events since the last hint
TIMEOUT: Final = 5.0
RETRY: Final = 1.0


class Hints:
    """Sends hints while it runs."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._due = asyncio.Event()
        self._stored = 0

    def tell(self, events: int) -> None:
        """So many events were stored."""
        self._stored += events
        self._due.set()

    async def run(self) -> None:
        """Notify after each `tell`, until cancelled."""
        while True:
            try:
                async with self._pool.acquire(timeout=TIMEOUT) as connection:
                    try:
                        await self._notify(connection)
                    finally:
                        connection.terminate()
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(RETRY)

    async def _notify(self, connection: Connection) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            pause = BUSY_PAUSE if self._stored > BUSY else PAUSE
            self._stored = 0
            async with asyncio.timeout(TIMEOUT):
                await hint(connection, DELIVERIES_CHANNEL)
            await asyncio.sleep(pause)

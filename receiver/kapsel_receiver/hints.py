"""Hints to the deliverers that something is due: one NOTIFY for many commits, and never in the way of an answer.

`intake` calls `tell` after a commit that was too large to notify by itself, with the destinations it concerns. The
notification goes out on a connection of its own, because a transaction that notifies takes a lock that all such
transactions of the server wait for. A hint that is lost costs the deliverers one poll.
"""

import asyncio
from collections.abc import Collection
from typing import Final
from uuid import UUID

from kapsel_store.database import DELIVERIES_CHANNEL, Connection, Pool, drop, is_away
from kapsel_store.hints import hint, naming

PAUSE: Final = 0.01  # seconds between hints: many webhooks come, and the deliverers have their hands full
TIMEOUT: Final = 5.0
RETRY: Final = 1.0


class Hints:
    """Sends hints while it runs."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._due = asyncio.Event()
        self._destinations: set[UUID] = set()

    def tell(self, destination_ids: Collection[UUID]) -> None:
        """Events were stored that go to these."""
        self._destinations.update(destination_ids)
        self._due.set()

    async def run(self) -> None:
        """Notify after each `tell`, until cancelled."""
        while True:
            try:
                async with self._pool.acquire(timeout=TIMEOUT) as connection:
                    try:
                        await self._notify(connection)
                    finally:
                        drop(connection)
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(RETRY)

    async def _notify(self, connection: Connection) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            said = naming(self._destinations)
            self._destinations.clear()
            async with asyncio.timeout(TIMEOUT):
                await hint(connection, DELIVERIES_CHANNEL, said)
            await asyncio.sleep(PAUSE)

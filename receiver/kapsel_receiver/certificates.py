"""The certificates of SNS, and the confirming of subscriptions: both are errands of the deliverer.

A receiver reaches its database and nothing else, so it asks there and looks until the deliverer has been. Whoever
sends before that is told to come again; what was fetched once is at hand from then on.
"""

import asyncio
from typing import Final

from kapsel_store import errands
from kapsel_store.database import Pool
from kapsel_store.errands import Ended

PATIENCE: Final = 8.0  # seconds that a message waits for its certificate; SNS hangs up after 15
LOOK: Final = 0.25
MOST_WAITING: Final = 16
MOST_KNOWN: Final = 64


class Certificates:
    """Certificates by URL."""

    def __init__(self, pool: Pool, *, patience: float = PATIENCE) -> None:
        self._pool = pool
        self._patience = patience
        self._known: dict[str, bytes] = {}
        self._waiting = 0

    def known(self, url: str) -> bytes | None:
        """Return a certificate that is at hand."""
        return self._known.get(url)

    async def fetch(self, url: str) -> Ended | None:
        """Have a certificate fetched, and return it or why there is none; None if that takes too long."""
        if self._waiting >= MOST_WAITING:
            return None
        self._waiting += 1
        try:
            ended = await self._fetched(url)
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
        if ended.answer is not None and len(self._known) < MOST_KNOWN:
            self._known[url] = ended.answer
        return ended

    async def confirm(self, url: str) -> None:
        """Have a subscription confirmed."""
        async with self._pool.acquire(timeout=self._patience) as connection:
            await errands.ask(connection, url, "confirmation")

    async def _fetched(self, url: str) -> Ended:
        async with asyncio.timeout(self._patience):
            async with self._pool.acquire() as connection:
                await errands.ask(connection, url, "certificate")
            while True:
                async with self._pool.acquire() as connection:
                    ended = await errands.find(connection, url)
                if ended is not None:
                    return ended
                await asyncio.sleep(LOOK)

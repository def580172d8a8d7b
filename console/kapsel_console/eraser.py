"""Goes on with erasures: what was under way when an event was forgotten is forgotten when it arrives.

Every console runs one beside its requests, so that an erasure ends although nobody asks again. A pass is harmless done
twice, so consoles need not agree on who does it.
"""

import asyncio
import logging
import time
from typing import Final
from uuid import UUID

from kapsel_console.metrics import Metrics
from kapsel_runtime.waiting import until
from kapsel_store import database, erasures

POLL: Final = 2.0  # seconds between looks for erasures that are due
BATCH: Final = 100
LEFT_ALONE: Final = 60.0  # seconds for an erasure that failed: it must not stand in the way of others

logger = logging.getLogger(__name__)


class Eraser:
    """Takes the passes that are due."""

    def __init__(self, pool: database.Pool, metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._failed: dict[UUID, float] = {}  # until when each is left alone

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for work until `stopping`."""
        while not stopping.is_set():
            try:
                while await self.round() == BATCH and not stopping.is_set():
                    pass
            except Exception as error:
                # Whatever is wrong here, people who ask the console must be answered.
                if not database.is_away(error):
                    logger.exception("erasures cannot go on; they are tried again")
            await until(stopping, timeout=POLL)

    async def round(self) -> int:
        """Do what is due, each event in a transaction of its own, and return how many could be done."""
        done = 0
        now = time.monotonic()
        self._failed = {event_id: end for event_id, end in self._failed.items() if end > now}
        async with self._pool.acquire(timeout=5) as connection:
            for event_id in await erasures.due(connection, BATCH, without=self._failed):
                try:
                    await erasures.erase(connection, event_id)
                    done += 1
                except Exception as error:
                    if database.is_away(error):
                        raise
                    self._failed[event_id] = now + LEFT_ALONE
                    logger.error("an event cannot be forgotten", exc_info=error, extra={"event_id": str(event_id)})
                # A crash here has forgotten the events so far; the others are still due.
            self._metrics.erasures_incomplete.set(await erasures.incomplete(connection))
        return done

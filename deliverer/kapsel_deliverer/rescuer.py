"""Finds what nobody holds any more: leases that ran out, deliveries past their age, turns that nobody passed on.

And it measures the queue. Every deliverer runs one, on an interval; the statements skip rows that another works on, so
they do not get in each other's way.
"""

import asyncio
import logging
from typing import Final

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_runtime.waiting import until
from kapsel_store import database, deliveries, turns
from kapsel_store.deliveries import Depth

BATCH: Final = 1000  # rows of one statement, so that no transaction grows long

logger = logging.getLogger(__name__)


class Rescuer:
    """Rescues, expires and measures."""

    def __init__(self, pool: database.Pool, metrics: DelivererMetrics, interval: float, rescued: asyncio.Event) -> None:
        self._pool = pool
        self._metrics = metrics
        self._interval = interval
        self._rescued = rescued

    async def run(self, stopping: asyncio.Event) -> None:
        """Look after the queue on the interval until `stopping`."""
        while not stopping.is_set():
            try:
                await self._sweep()
            except Exception as error:
                if not database.is_away(error):
                    raise
                self._metrics.database_up.set(0)
            await until(stopping, timeout=self._interval)

    async def _sweep(self) -> None:
        async with self._pool.acquire(timeout=5) as connection:
            # As long as there is a whole batch: where some end all the time, what comes after this would wait for ever.
            rescued = cancelled = expired = BATCH
            while rescued == BATCH:
                if rescued := await deliveries.rescue(connection, BATCH):
                    self._metrics.rescued.inc(rescued)
                    self._rescued.set()
                    logger.warning("%d deliveries were rescued: their leases ran out", rescued)
            while cancelled == BATCH:
                if cancelled := await deliveries.cancel_orphans(connection, BATCH):
                    logger.warning("%d deliveries were cancelled: their destination was removed", cancelled)
            while expired == BATCH:
                if expired := await deliveries.expire(connection, BATCH, self._metrics.gave_up):
                    self._metrics.expired.inc(expired)
                    logger.warning("%d deliveries ended by their age", expired)
            if await turns.sweep(connection, BATCH):
                self._rescued.set()
            self._metrics.blocked_keys.set(await turns.count_blocked(connection))
            self._show(await deliveries.depth(connection))

    def _show(self, depth: Depth) -> None:
        self._metrics.depth.labels("pending").set(depth.pending)
        self._metrics.depth.labels("sending").set(depth.sending)
        self._metrics.oldest_pending.set(depth.oldest_pending_age.total_seconds())
        self._metrics.oldest_due.set(depth.oldest_due_age.total_seconds())
        self._metrics.dead_tuples.set(depth.dead_tuples)
        self._metrics.strays.set(depth.strays)
        self._metrics.database_up.set(1)

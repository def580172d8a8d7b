"""Measures how old the oldest undelivered event of each destination is, and whose fault that is.

Every deliverer runs one, as each measures the queue, so an alert takes the maximum. Only the destinations that are
worst off have a series, of each fault so many, and one that owes nothing has none: thousands of destinations are not
thousands of series, and what others owe does not hide what is ours.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_runtime.waiting import until
from kapsel_store import database, undelivered
from kapsel_store.reasons import FAULTS
from kapsel_store.undelivered import Oldest

INTERVAL: Final = 30.0  # seconds
MOST: Final = 100  # destinations with a series, of each fault


class Arrears:
    """Measures on an interval."""

    def __init__(self, pool: database.Pool, metrics: DelivererMetrics) -> None:
        self._pool = pool
        self._metrics = metrics

    async def run(self, stopping: asyncio.Event) -> None:
        """Measure until `stopping`."""
        while not stopping.is_set():
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    now = datetime.now(UTC)
                    show(self._metrics, await undelivered.oldest(connection, now=now), now)
            except Exception as error:
                if not database.is_away(error):
                    raise
                self._metrics.database_up.set(0)
            await until(stopping, timeout=INTERVAL)


def show(metrics: DelivererMetrics, found: list[Oldest], now: datetime) -> None:
    """Set the series of those that are worst off, and forget all others."""
    metrics.undelivered.clear()
    for fault in FAULTS:
        for one in [one for one in found if one.fault == fault][:MOST]:
            metrics.undelivered.labels(one.destination, fault).set((now - one.created_at).total_seconds())

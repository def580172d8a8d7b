"""Records results: whatever waits goes into ONE statement and one commit, and while that runs the next ones gather.

The worker puts results here and goes on. A result stays until it is recorded, however long the database is away, for
an attempt that was made belongs into the log even if its lease has ended; the worker claims nothing new while too many
wait. A crash before the commit loses the result, and the delivery is tried again when its lease ends.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Final
from uuid import UUID

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_runtime.backoff import reconnecting
from kapsel_store import database, deliveries
from kapsel_store.rows import Result

BATCH: Final = 500  # results in one statement
WRITERS: Final = 2  # commits under way: while one waits for the disk, the next is put together

logger = logging.getLogger(__name__)


class Recorder:
    """Holds the results that are not recorded yet."""

    def __init__(
        self, pool: database.Pool, metrics: DelivererMetrics, recorded: Callable[[Sequence[Result], Set[UUID]], None]
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        metrics.unrecorded.set_function(lambda: self.backlog)
        self._recorded = recorded
        self._waiting: deque[Result] = deque()
        self._being_written = 0
        self._arrived = asyncio.Event()
        self._closing = False

    @property
    def backlog(self) -> int:
        """How many results are not recorded yet."""
        return len(self._waiting) + self._being_written

    def put(self, result: Result) -> None:
        """Have a result recorded."""
        self._waiting.append(result)
        self._arrived.set()

    def close(self) -> None:
        """Let `run` end when everything is recorded; nothing is put after this."""
        self._closing = True
        self._arrived.set()

    async def run(self) -> None:
        """Record until closed and empty."""
        async with asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(self._write())

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                continue
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._being_written += len(batch)
            try:
                await self._record(batch)
            finally:
                self._being_written -= len(batch)

    async def _record(self, batch: Sequence[Result]) -> None:
        """Record a batch, however long that takes."""
        waits = reconnecting()
        while True:
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    held = await deliveries.record(connection, batch)
                break
            except Exception as error:  # noqa: BLE001 - whatever it is, the other results of the batch are recorded
                if not database.is_away(error):
                    await self._isolate(batch, error)
                    return
                self._metrics.database_up.set(0)
                await asyncio.sleep(next(waits))
        # A crash here loses nothing: the attempts are durable, and so is where they leave their deliveries.
        self._metrics.database_up.set(1)
        self._metrics.records.observe(len(batch))
        self._metrics.lost_leases.inc(len(batch) - len(held))
        self._recorded(batch, held)

    async def _isolate(self, batch: Sequence[Result], error: Exception) -> None:
        """One result that the database refuses must not keep the others from being recorded."""
        if len(batch) > 1:
            for result in batch:
                await self._record([result])
            return
        (result,) = batch
        attempt = result.attempt
        self._metrics.errors.labels("record").inc()
        logger.error(
            "an attempt cannot be recorded; its delivery is tried again when its lease ends",
            exc_info=error,
            extra={
                "delivery_id": str(attempt.delivery_id),
                "event_id": str(attempt.event_id),
                "attempt": attempt.number,
                "correlation_id": result.correlation_id,
            },
        )

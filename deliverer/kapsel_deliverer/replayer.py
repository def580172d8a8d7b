"""Carries out Replays: counts what a selection means, makes the new deliveries at its pace, and sees them end.

Every deliverer runs one. A turn is one short transaction that holds one replay's row, so deliverers take turns with a
replay as they come, and what one of them had not committed when it died never was. Sending is left to the worker, which
finds the new deliveries like any others.
"""

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from kapsel_deliverer import selecting
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_runtime.waiting import until
from kapsel_store import database, hints, replay_runs
from kapsel_store.database import DELIVERIES_CHANNEL, Connection
from kapsel_store.replay_runs import Run, Step

POLL: Final = 1.0  # seconds between looks for replays that are due
WIDTH: Final = 2000  # rows that one statement of the walk may look at
COUNTED: Final = 1000  # deliveries of the selection that one statement counts
TICK: Final = 0.5  # seconds of deliveries in one batch, unless that is too large
BATCH: Final = 500  # new deliveries of one transaction
SETTLED: Final = 1000  # open deliveries that one turn looks at
SETTLING: Final = timedelta(seconds=1)
# What ended just before the start may be committed just after it, and must be seen by the first look as by the last.
START: Final = timedelta(seconds=1)
FAILED: Final = timedelta(seconds=30)
REST: Final = 3.0  # seconds without replays for each that went into their expressions: others have events, too

logger = logging.getLogger(__name__)


class Replayer:
    """Takes turns with the replays that are due."""

    def __init__(self, pool: database.Pool, metrics: DelivererMetrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._at: UUID | None = None  # the replay of the turn under way
        self._rest = 0.0  # seconds until the next turn

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for work until `stopping`; a turn that is under way ends."""
        while not stopping.is_set():
            wait = POLL
            try:
                wait = await self._round(stopping)
            except Exception as error:  # noqa: BLE001 - what is wrong with a replay must not stop deliveries
                await self._failed(error)
            await until(stopping, timeout=wait)

    async def _round(self, stopping: asyncio.Event) -> float:
        """Take turns until nothing is due, and return when to look again."""
        async with self._pool.acquire(timeout=5) as connection:
            running = await replay_runs.running(connection)
        self._metrics.replays_running.set(running)
        soonest = POLL
        while running and not stopping.is_set() and (again_in := await self._turn()) is not None:
            soonest = min(soonest, again_in.total_seconds())
            if self._rest:
                await until(stopping, timeout=self._rest)
        return soonest

    async def _turn(self) -> timedelta | None:
        """Bring one replay a step further; return when it is due again, None if none was due."""
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            run = await replay_runs.take(connection)
            if run is None:
                return None
            self._at = run.id
            after, again_in = await self._advance(connection, run)
            await replay_runs.save(connection, after, again_in)
        # A crash before the commit undoes the turn whole, and whoever comes next takes it again.
        self._at = None
        self._metrics.replayed.inc(after.enqueued - run.enqueued)
        if after.completed_at is not None:
            _say_complete(after)
        return again_in

    async def _advance(self, connection: Connection, run: Run) -> tuple[Run, timedelta]:
        self._rest = 0.0
        if run.started_at is None:
            return replace(run, started_at=run.now), START
        if run.counted_at is None:
            return await self._count(connection, run), timedelta(0)
        pause = SETTLING
        if run.enqueued_at is None and not run.suspend:
            run, pause = await self._enqueue(connection, run)
        return completed(await replay_runs.settle(connection, run, SETTLED)), pause

    async def _count(self, connection: Connection, run: Run) -> Run:
        step = await selecting.step(connection, run, most=COUNTED, width=WIDTH)
        self._rest = REST * step.seconds
        return counted(run, step)

    async def _enqueue(self, connection: Connection, run: Run) -> tuple[Run, timedelta]:
        step = await selecting.step(connection, run, most=batch(run.rate), width=WIDTH)
        self._rest = REST * step.seconds
        made = 0
        if chosen := [one for one in step.found if not (one.gone or one.removed)]:
            made = await replay_runs.enqueue(connection, run, chosen)
            await hints.tell(connection, DELIVERIES_CHANNEL)
        return enqueued(run, step, made), timedelta(seconds=made / run.rate)

    async def _failed(self, error: Exception) -> None:
        at, self._at = self._at, None
        if database.is_away(error):
            self._metrics.database_up.set(0)
            return
        self._metrics.errors.labels("replay").inc()
        logger.error("a replay cannot go on; it is tried again later", exc_info=error, extra={"replay_id": str(at)})
        if at is None:
            return
        try:
            async with self._pool.acquire(timeout=5) as connection:
                await replay_runs.put_off(connection, at, FAILED)
        except Exception as away:
            if not database.is_away(away):
                raise


def batch(rate: int) -> int:
    """Return how many deliveries to make at once, so that no second has more than `rate`."""
    return max(1, min(BATCH, int(rate * TICK)))


def counted(run: Run, step: Step) -> Run:
    """Return a run that has counted what a step found."""
    after = replace(
        run,
        matched=run.matched + len(step.found),
        unjudged=run.unjudged + step.unjudged,
        walked_event=step.walked_event,
        walked_delivery=step.walked_delivery,
    )
    return completed(replace(after, counted_at=run.now).rewound()) if step.last else after


def enqueued(run: Run, step: Step, made: int) -> Run:
    """Return a run that has made so many new deliveries of what a step found, and skipped what could not be sent."""
    gone = sum(one.gone for one in step.found)
    removed = sum(one.removed and not one.gone for one in step.found)
    after = replace(
        run,
        enqueued=run.enqueued + made,
        skipped_events=run.skipped_events + gone,
        skipped_destinations=run.skipped_destinations + removed,
        skipped_pending=run.skipped_pending + len(step.found) - gone - removed - made,
        walked_event=step.walked_event,
        walked_delivery=step.walked_delivery,
    )
    if not step.last:
        return after
    # What the first walk matched may have been dropped with its retention before this one came by.
    lost = max(0, run.matched - after.walked)
    return replace(
        after, skipped_events=after.skipped_events + lost, matched=max(run.matched, after.walked), enqueued_at=run.now
    )


def completed(run: Run) -> Run:
    """Return a run that is complete if nothing of it is left to do."""
    done = run.counted_at is not None if run.dry_run else run.enqueued_at is not None and run.open == 0
    return replace(run, completed_at=run.now) if done else run


def _say_complete(run: Run) -> None:
    logger.info(
        "a replay is complete",
        extra={
            "replay": f"{run.namespace}/{run.name}",
            "matched": run.matched,
            "enqueued": run.enqueued,
            "delivered": run.delivered,
            "failed": run.failed,
            "skipped": run.skipped_events + run.skipped_destinations + run.skipped_pending,
        },
    )

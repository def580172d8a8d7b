"""The attestor's one loop: become the only sequencer of the log, extend it, publish its heads, and know when not to.

`__main__` runs it. One connection carries the lock and all the writing, so who loses the connection loses the lock.
While nothing may be signed nothing is appended either: attempts wait, and the log that is signed in the end holds them.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from kapsel_attestor import publisher
from kapsel_attestor.errors import FenceAwayError, FenceMovedError, FrozenError, MismatchError, RefusedError
from kapsel_attestor.fence import Fence
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.sequencer import Sequencer
from kapsel_attestor.signers import signer_of
from kapsel_attestor.status_report import Reporter, Standing
from kapsel_runtime.backoff import patient, reconnecting
from kapsel_runtime.waiting import until
from kapsel_store import tlog
from kapsel_store.configuration import Source
from kapsel_store.database import Connection, Pool, is_away
from kapsel_store.errors import StaleTreeError
from kapsel_store.rows import LogRow
from kapsel_store.tlog import LogState
from kapsel_tlog import check
from kapsel_tlog.errors import DamagedTreeError

LOOK = 0.25  # seconds between looks at how many attempts wait, where the interval is longer
STANDBY = 0.5  # seconds between tries to take the lock over, or to find that a person has acted

logger = logging.getLogger(__name__)


def now_ms() -> int:
    """Return the time in milliseconds since the epoch, as heads are dated."""
    return time.time_ns() // 1_000_000


class Attestor:
    """Keeps the log that the configuration names, until it stops."""

    def __init__(
        self,
        pool: Pool,
        source: Source,
        open_fence: Callable[[LogRow], Fence],
        metrics: Metrics,
        *,
        reporter: Reporter | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """Keep the log of `source`; `open_fence` gives its fence, or raises RefusedError if it is not this log's."""
        self._pool = pool
        self._source = source
        self._open_fence = open_fence
        self._reporter = reporter
        self._metrics = metrics
        self._clock = clock
        self._refolded: set[str] = set()
        self._damaged = False
        self._parked = 0
        self._trouble: str | None = None  # why nothing is signed, and what to do about it

    def problem(self) -> str | None:
        """Return what a person has to act upon, or None."""
        if self._trouble is None and self._parked:
            return f"{self._parked} attempts cannot be put into the log; the log lines about them say why"
        return self._trouble

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`; then what has arrived by then is still integrated and published."""
        async with asyncio.TaskGroup() as tasks:
            ended = asyncio.Event()
            if self._reporter is not None:
                tasks.create_task(self._reporter.run(ended))
            await self._keep_leading(tasks, stopping)
            ended.set()

    async def _keep_leading(self, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        waits, refusals = reconnecting(), patient()
        while not stopping.is_set():
            pause = STANDBY
            try:
                await self._turn(tasks, stopping)
                waits = reconnecting()
                refusals = patient() if self._trouble is None else refusals
                pause = STANDBY if self._trouble is None else next(refusals)
            except FenceAwayError as error:
                self._fence_is_away(error)
                pause = next(refusals)
            except (StaleTreeError, FenceMovedError) as error:
                self._metrics.batches.labels(result="stale").inc()
                logger.warning("another attestor is at work: %s", error)
            except Exception as error:
                self._metrics.batches.labels(result="failed").inc()
                pause = next(waits)
                if is_away(error):
                    logger.warning("the database is away: %s", str(error) or type(error).__name__)
                else:
                    logger.exception("the log could not be extended; trying again")
            await until(stopping, timeout=pause)

    async def _turn(self, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        """Lead the log for as long as it goes well; return at once if there is none, or another attestor leads it."""
        row = self._source.current.log
        if row is None:
            self._stand_by()
            return
        async with self._pool.acquire(timeout=5) as connection:
            if not await tlog.try_lock(connection, row.origin):
                self._stand_by()
                return
            try:
                await self._hold(connection, row, tasks, stopping)
            finally:
                await self._let_go(connection, row.origin)

    async def _hold(
        self, connection: Connection, row: LogRow, tasks: asyncio.TaskGroup, stopping: asyncio.Event
    ) -> None:
        """Lead the log whose lock is held, or find out why that must not be."""
        log = await tlog.open_log(connection, row.origin)
        try:
            _require_unfrozen(log)
            await self._lead(connection, row, log, tasks, stopping)
        except MismatchError as error:
            await tlog.freeze(connection, log.id, str(error))
            # A crash here changes nothing: the reason is stored, and without it the same check fails again.
            await self._refuse(connection, row, log, FrozenError(f"the log {log.origin} is frozen: {error}"))
        except RefusedError as error:
            await self._refuse(connection, row, log, error)

    async def _refuse(self, connection: Connection, row: LogRow, log: LogState, error: RefusedError) -> None:
        self._settle(str(error))
        words = {"frozen" if isinstance(error, FrozenError) else "trouble": str(error)}
        self._tell(Standing(head=await tlog.latest_head(connection, log.id), due=_due(row), **words))

    def _stand_by(self) -> None:
        self._settle(None)
        self._tell(None)

    def _tell(self, standing: Standing | None) -> None:
        if self._reporter is not None:
            self._reporter.tell(standing)

    def _fence_is_away(self, error: FenceAwayError) -> None:
        if self._metrics.fence_is_up:
            logger.warning("heads wait for the fence: %s", error)
        self._metrics.set_fence_up(False)

    async def _let_go(self, connection: Connection, origin: str) -> None:
        try:
            await tlog.unlock(connection, origin)
        except Exception as error:
            if not is_away(error):
                raise
            connection.terminate()  # and the lock with it

    async def _lead(
        self,
        connection: Connection,
        led: LogRow,
        log: LogState,
        tasks: asyncio.TaskGroup,
        stopping: asyncio.Event,
    ) -> None:
        guard = self._open_fence(led)
        await publisher.inspect(connection, log, guard)
        self._metrics.set_fence_up(True)
        self._settle(None)
        self._damaged = False
        sequencer = await Sequencer.open(connection, log)
        head = await tlog.latest_head(connection, log.id)
        self._tell(Standing(head=head, due=_due(led)))
        published = 0 if head is None else head.tree_size
        # What is due goes by a clock that nobody sets; only the age of a head from before this start must be guessed.
        last = None if head is None else time.monotonic() - max(self._clock() - head.timestamp_ms, 0) / 1000
        refold = tasks.create_task(self._refold(log))
        away: asyncio.Task[None] | None = None  # waits until the fence is back
        try:
            while not self._damaged and (row := self._source.current.log) is not None and _is_same(row, led):
                drained = await self._integrate(connection, sequencer, row)
                unpublished = sequencer.log.tree_size - published
                age = None if last is None else timedelta(seconds=time.monotonic() - last)
                rest = publisher.due_in(row, unpublished=unpublished, age=age)
                if away is not None and not away.done():
                    rest = max(rest, timedelta(seconds=LOOK))
                ending = stopping.is_set() and drained
                if rest <= timedelta(0) or (ending and unpublished):
                    try:
                        published, last = await self._publish(connection, row, guard), time.monotonic()
                    except FenceAwayError as error:
                        # Leaves go on; if this attestor ends, the next one publishes what it has put into the log.
                        self._fence_is_away(error)
                        away = tasks.create_task(_back(guard))
                elif drained and not ending:
                    await self._pause(connection, row, rest, stopping)
                if ending:
                    return
        finally:
            refold.cancel()
            if away is not None:
                away.cancel()

    async def _integrate(self, connection: Connection, sequencer: Sequencer, row: LogRow) -> bool:
        """Append one batch; return whether no full one was waiting."""
        taken = await sequencer.integrate(connection, row.integrate_batch)
        if taken:
            self._metrics.batches.labels(result="integrated").inc()
        self._parked = len(sequencer.parked)
        return taken < row.integrate_batch

    async def _pause(self, connection: Connection, row: LogRow, rest: timedelta, stopping: asyncio.Event) -> None:
        """Wait for the interval, a full batch or the next head, whichever comes first."""
        end = time.monotonic() + min(row.integrate_interval, rest).total_seconds()
        while (left := end - time.monotonic()) > 0:
            if await until(stopping, timeout=min(left, LOOK)):
                return
            if left > LOOK:
                count, _ = await tlog.pending_count(connection, datetime.now(UTC))
                if count - self._parked >= row.integrate_batch:
                    return

    async def _publish(self, connection: Connection, row: LogRow, guard: Fence) -> int:
        """Publish a head over what is stored now and return its size."""
        log = await tlog.open_log(connection, row.origin)
        _require_unfrozen(log)
        signer = signer_of(self._source.current, row, datetime.now(UTC))
        head = await publisher.publish(connection, log, guard, signer, self._clock)
        self._metrics.set_fence_up(True)
        self._tell(Standing(head=head, due=_due(row)))
        logger.debug("published the head of %d leaves", head.tree_size)
        return head.tree_size

    async def _refold(self, log: LogState) -> None:
        """Read all tiles back, once in the life of this process; heads need not wait for it."""
        if log.origin in self._refolded:
            return
        try:
            async with self._pool.acquire(timeout=5) as connection:
                try:
                    await check.refold(connection, log.id, log.tree_size)
                except DamagedTreeError as error:
                    await tlog.freeze(connection, log.id, f"{error}; found by reading the whole log back")
                    self._damaged = True
            self._refolded.add(log.origin)
        except Exception as error:
            if not is_away(error):
                raise
            # The loop has lost its connection too, and comes here again with the next one.

    def _settle(self, trouble: str | None) -> None:
        """Note why nothing is signed, or that all is well, and say so when it changes."""
        self._metrics.frozen.set(trouble is not None)
        if trouble != self._trouble:
            if trouble is None:
                logger.info("heads are signed again")
            else:
                logger.critical("nothing is signed: %s", trouble)
        self._trouble = trouble


async def _back(guard: Fence) -> None:
    """Wait until the fence can be reached; what it then says is found out by who reads it next."""
    for wait in patient():
        await asyncio.sleep(wait)
        try:
            await asyncio.to_thread(guard.read)
        except FenceAwayError:
            continue
        except RefusedError:
            pass
        return


def _require_unfrozen(log: LogState) -> None:
    if log.frozen_reason is not None:
        raise FrozenError(f"the log {log.origin} is frozen: {log.frozen_reason}")


def _is_same(row: LogRow, led: LogRow) -> bool:
    """Whether the configuration still names the log that is led; its intervals may be others."""
    return (row.namespace, row.name, row.origin) == (led.namespace, led.name, led.origin)


def _due(row: LogRow) -> timedelta:
    """Return how old a head may become before the next one."""
    return max(row.idle_interval, row.publish_interval)

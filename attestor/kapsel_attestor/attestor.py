"""The attestor's one loop: become the only sequencer of the log, lead it, and know when not to.

`__main__` runs it. One connection carries the lock and all the appending, so who loses the connection loses the lock.
While the log may not be signed nothing is appended either: attempts wait, and the log that is signed in the end holds
them. What is done while all is well is the leader's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from kapsel_attestor import publisher
from kapsel_attestor.beside import SideTask
from kapsel_attestor.errors import (
    FenceAwayError,
    FenceMovedError,
    FrozenError,
    LateError,
    MismatchError,
    RefusedError,
    SigningError,
)
from kapsel_attestor.fence import Fence
from kapsel_attestor.leader import Leader, Surroundings, require_unfrozen
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.publisher import Cosigner
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring
from kapsel_attestor.status_report import Condition, Reporter, Standing, key_documents
from kapsel_runtime.backoff import patient, reconnecting
from kapsel_runtime.waiting import until
from kapsel_store import log_keys, tlog
from kapsel_store.configuration import Source
from kapsel_store.database import Connection, Pool, is_away
from kapsel_store.errors import StaleTreeError
from kapsel_store.rows import LogRow
from kapsel_store.tlog import HeadRow, LogState
from kapsel_tlog import continuation
from kapsel_tlog.errors import BusyLogError

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
        keyring: Keyring | None = None,
        cosigner: Cosigner | None = None,
        beside: Sequence[SideTask] = (),
    ) -> None:
        """Keep the log of `source`; `open_fence` gives its fence, or raises RefusedError if it is not this log's.

        Heads are shown to `cosigner` before they are published, and `beside` runs while this attestor leads.
        """
        self._pool = pool
        self._source = source
        self._open_fence = open_fence
        self._reporter = reporter
        self._metrics = metrics
        self._around = Surroundings(
            pool=pool,
            source=source,
            metrics=metrics,
            clock=clock,
            keyring=keyring or Keyring(Identity()),
            cosigner=cosigner,
            beside=tuple(beside),
            say=self._say,
            show_keys=self._show_keys,
            published=self._published,
            late=self._late,
        )
        self._leader: Leader | None = None
        self._read_back: set[str] = set()  # origins that were read back in the life of this process
        self._trouble: str | None = None  # why nothing is signed, and what to do about it

    def problem(self) -> str | None:
        """Return what a person has to act upon, or None."""
        if self._trouble is None and self._leader is not None and self._leader.parked:
            return f"{self._leader.parked} attempts cannot be put into the log; the log lines about them say why"
        return self._trouble

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`; then what has arrived by then is still integrated and published."""
        async with asyncio.TaskGroup() as tasks:
            ended = asyncio.Event()
            if self._reporter is not None:
                tasks.create_task(self._reporter.run(ended))
            await self._keep_leading(stopping)
            ended.set()

    async def _keep_leading(self, stopping: asyncio.Event) -> None:
        waits, refusals = reconnecting(), patient()
        while not stopping.is_set():
            pause = STANDBY
            try:
                await self._turn(stopping)
                waits = reconnecting()
                refusals = patient() if self._trouble is None else refusals
                pause = STANDBY if self._trouble is None else next(refusals)
            except FenceAwayError as error:
                self._fence_is_away(error)
                pause = next(refusals)
            except (StaleTreeError, FenceMovedError, BusyLogError) as error:
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

    async def _turn(self, stopping: asyncio.Event) -> None:
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
                await self._hold(connection, row, stopping)
            finally:
                await self._let_go(connection, row.origin)

    async def _hold(self, connection: Connection, row: LogRow, stopping: asyncio.Event) -> None:
        """Lead the log whose lock is held, or find out why that must not be."""
        log = await tlog.state(connection, row.origin)
        try:
            if log is None:
                log = await self._begin(connection, row)
            require_unfrozen(log)
            await self._lead(connection, row, log, stopping)
        except MismatchError as error:
            await tlog.freeze(connection, (log := await tlog.open_log(connection, row.origin)).id, str(error))
            # A crash here changes nothing: the reason is stored, and without it the same check fails again.
            await self._refuse(connection, row, log, FrozenError(f"the log {log.origin} is frozen: {error}"))
        except RefusedError as error:
            await self._refuse(connection, row, log, error)

    async def _begin(self, connection: Connection, row: LogRow) -> LogState:
        """Begin a log that this database does not have yet."""
        # A fence that does not fit is found out before that, for a new log closes the one before it.
        await asyncio.to_thread(self._open_fence(row).read)
        log = await continuation.begin(connection, row.origin, self._around.clock())
        if log.tree_size:
            logger.warning("the log %s continues the one before it, which is closed for good", log.origin)
        return log

    async def _refuse(self, connection: Connection, row: LogRow, log: LogState | None, error: RefusedError) -> None:
        self._settle(str(error))
        words = {"frozen" if isinstance(error, FrozenError) else "trouble": str(error)}
        head = None if log is None else await tlog.latest_head(connection, log.id)
        if log is not None:
            await self._show_keys(connection, log)
        self._tell(Standing(head=head, due=_due(row), **words))

    def _stand_by(self) -> None:
        self._settle(None)
        self._tell(None)

    def _tell(self, standing: Standing | None) -> None:
        if self._reporter is not None:
            self._reporter.tell(standing)

    async def _show_keys(self, connection: Connection, log: LogState) -> None:
        if self._reporter is not None:
            self._reporter.show_keys(key_documents(log.origin, await log_keys.history(connection, log.id)))

    def _say(self, condition: Condition) -> None:
        if self._reporter is not None:
            self._reporter.say(condition)

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

    async def _lead(self, connection: Connection, row: LogRow, log: LogState, stopping: asyncio.Event) -> None:
        guard = self._open_fence(row)
        await publisher.inspect(connection, log, guard)
        self._metrics.set_fence_up(True)
        self._settle(None)
        await self._show_keys(connection, log)
        self._tell(Standing(head=await tlog.latest_head(connection, log.id), due=_due(row)))
        self._leader = leader = Leader(self._around, row, log, guard)
        try:
            await leader.lead(connection, stopping, read_back=log.origin not in self._read_back)
        finally:
            if leader.was_read_back:
                self._read_back.add(log.origin)

    def _published(self, head: HeadRow, row: LogRow) -> None:
        self._metrics.set_fence_up(True)
        self._settle(None)
        self._tell(Standing(head=head, due=_due(row)))

    def _late(self, error: LateError, head: HeadRow | None, row: LogRow) -> None:
        if isinstance(error, FenceAwayError):
            self._fence_is_away(error)
        elif isinstance(error, SigningError):
            self._settle(str(error))
        else:
            logger.warning("heads wait: %s", error)
        self._tell(Standing(head=head, due=_due(row), late=str(error)))

    def _settle(self, trouble: str | None) -> None:
        """Note why nothing is signed, or that all is well, and say so when it changes."""
        self._metrics.frozen.set(trouble is not None)
        if trouble != self._trouble:
            if trouble is None:
                logger.info("heads are signed again")
            else:
                logger.critical("nothing is signed: %s", trouble)
        self._trouble = trouble


def _due(row: LogRow) -> timedelta:
    """Return how old a head may become before the next one."""
    return max(row.idle_interval, row.publish_interval)

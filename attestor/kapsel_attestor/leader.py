"""What an attestor does while it leads a log: extends it, publishes its heads, reads it back, runs what stands beside.

The attestor calls `lead` while it holds the log's lock and the fence was found to fit. Leaves go in over the connection
of the lock; heads are published by a task over another one, so that whatever a head waits for (the fence, a signer,
witnesses) delays no leaf.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kapsel_attestor import publisher
from kapsel_attestor.beside import Led, SideTask, keep_running
from kapsel_attestor.errors import FrozenError, LateError, MismatchError, RefusedError
from kapsel_attestor.fence import Fence
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.patrol import patrol
from kapsel_attestor.publisher import Cosigner
from kapsel_attestor.sequencer import Note, Sequencer
from kapsel_attestor.signers.keyring import Keyring
from kapsel_attestor.status_report import Condition
from kapsel_attestor.succession import Succession
from kapsel_runtime.backoff import patient
from kapsel_runtime.waiting import until
from kapsel_store import tlog
from kapsel_store.configuration import Source
from kapsel_store.database import Connection, Pool
from kapsel_store.errors import StaleTreeError
from kapsel_store.rows import LogRow
from kapsel_store.tlog import HeadRow, LogState
from kapsel_tlog.errors import DamagedTreeError

LOOK = 0.25  # seconds between looks at how many attempts wait, where the interval is longer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an attestor works with, whichever log it leads."""

    pool: Pool
    source: Source
    metrics: Metrics
    clock: Callable[[], int]  # milliseconds since the epoch, as heads are dated
    keyring: Keyring
    cosigner: Cosigner | None
    beside: Sequence[SideTask]
    say: Callable[[Condition], None]
    show_keys: Callable[[Connection, LogState], Awaitable[None]]
    published: Callable[[HeadRow, LogRow], None]
    late: Callable[[LateError, HeadRow | None, LogRow], None]


class Leader:
    """Leads one log, once."""

    def __init__(self, around: Surroundings, led: LogRow, log: LogState, guard: Fence) -> None:
        self._around = around
        self._led = led
        self._log = log
        self._guard = guard
        self._size = log.tree_size
        self._head: HeadRow | None = None
        self._last: float | None = None  # when it was published
        self._grown = asyncio.Event()
        self._succession = Succession(around.source, around.keyring, log.id, self._state, around.clock)
        self._statements = asyncio.Queue[tuple[bytes, Note, asyncio.Future[None]]]()
        self.parked = 0
        self.was_read_back = False
        self._was_noted = False

    async def lead(self, connection: Connection, stopping: asyncio.Event, *, read_back: bool) -> None:
        """Lead until `stopping` or until another log is configured; what is in the log by then is still published.

        Raises what ended it before: MismatchError if the log must be frozen, RefusedError, FenceMovedError, or what
        the database or the sequencer raises.
        """
        self._head = await tlog.latest_head(connection, self._log.id)
        if self._head is not None:
            # What is due goes by a clock that nobody sets; only the age of an earlier head must be guessed.
            self._last = time.monotonic() - max(self._around.clock() - self._head.timestamp_ms, 0) / 1000
        led = Led(pool=self._around.pool, log=self._log, row=self._row, say=self._around.say)
        beside = [
            asyncio.create_task(keep_running(task, led, self._around.metrics), name=task.name)
            for task in (self._succession, *self._around.beside)
        ]
        integrated = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(
                    patrol(self._around.pool, self._log, refold=read_back, folded=self._was_folded)
                )
                tasks.create_task(self._publish_in_time(integrated))
                await self._integrate(connection, stopping)
                integrated.set()
                reading.cancel()
        except BaseExceptionGroup as group:
            raise _gravest(group) from None
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _row(self) -> LogRow:
        """Return the log as it is configured now, or was last if another one is."""
        row = self._around.source.current.log
        return row if row is not None and _is_same(row, self._led) else self._led

    def _is_configured(self) -> bool:
        row = self._around.source.current.log
        return row is not None and _is_same(row, self._led)

    async def _integrate(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Append batches until there is a reason to stop and no full one is waiting."""
        try:
            sequencer = await Sequencer.open(connection, self._log, ahead=self._around.pool)
        except DamagedTreeError as error:
            raise MismatchError(f"the tree of {self._log.origin} cannot be extended: {error}") from error
        try:
            while self._is_configured():
                row = self._row()
                await self._state_all(connection, sequencer)
                if await sequencer.integrate(connection, row.integrate_batch):
                    self._around.metrics.batches.labels(result="integrated").inc()
                self._note(sequencer)
                if sequencer.drained:
                    if stopping.is_set():
                        return
                    await self._pause(connection, row, stopping)
        except DamagedTreeError as error:
            raise MismatchError(f"the tree of {self._log.origin} cannot be extended: {error}") from error
        finally:
            await sequencer.close()

    async def _state(self, leaf: bytes, note: Note) -> None:
        """Have what the log says about itself put into it, and return when it is there."""
        stated: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._statements.put_nowait((leaf, note, stated))
        await stated

    async def _state_all(self, connection: Connection, sequencer: Sequencer) -> None:
        while not self._statements.empty():
            leaf, note, stated = self._statements.get_nowait()
            if not stated.cancelled():
                await sequencer.state(connection, leaf, note)
                stated.set_result(None)

    def _note(self, sequencer: Sequencer) -> None:
        self._size = sequencer.log.tree_size
        self._grown.set()
        if sequencer.parked != self.parked or not self._was_noted:
            self.parked, self._was_noted = sequencer.parked, True
            self._around.say(_completeness(self.parked, sequencer.latest_reason))

    async def _pause(self, connection: Connection, row: LogRow, stopping: asyncio.Event) -> None:
        """Wait for the interval or a full batch, whichever comes first."""
        end = time.monotonic() + row.integrate_interval.total_seconds()
        while (left := end - time.monotonic()) > 0 and self._is_configured():
            if await until(stopping, timeout=min(left, LOOK)):
                return
            if left > LOOK:
                count, _ = await tlog.pending_count(connection, datetime.now(UTC))
                if count >= row.integrate_batch:
                    return

    async def _publish_in_time(self, integrated: asyncio.Event) -> None:
        """Publish heads when they are due, and a last one when nothing is integrated any more."""
        waits = patient()
        while True:
            ending = integrated.is_set()
            rest = publisher.due_in(self._row(), unpublished=self._unpublished(), age=self._age()).total_seconds()
            if rest <= 0 or (ending and self._unpublished()):
                try:
                    await self._publish()
                    waits = patient()
                    continue
                except LateError as error:
                    self._around.metrics.late_heads.labels(waits_for=error.waits_for).inc()
                    self._around.late(error, self._head, self._row())
                if ending:
                    return  # the next attestor publishes what this one has put into the log
                await until(integrated, timeout=next(waits))
            elif ending:
                return
            else:
                self._grown.clear()
                await until(self._grown, integrated, timeout=min(rest, LOOK))

    def _unpublished(self) -> int:
        return self._size - (0 if self._head is None else self._head.tree_size)

    def _age(self) -> timedelta | None:
        return None if self._last is None else timedelta(seconds=time.monotonic() - self._last)

    async def _publish(self) -> None:
        row = self._row()
        cosigner = self._around.cosigner
        async with self._around.pool.acquire(timeout=5) as connection:
            log = await _current(connection, row.origin)
            signers = await self._succession.signers(connection, row)
            head = await publisher.publish(
                connection,
                log,
                self._guard,
                signers,
                self._around.clock,
                None if cosigner is None else functools.partial(cosigner.cosign, row),
            )
            await self._around.show_keys(connection, log)
        self._head, self._last = head, time.monotonic()
        self._around.published(head, row)
        logger.debug("published the head of %d leaves", head.tree_size)

    def _was_folded(self) -> None:
        self.was_read_back = True


async def _current(connection: Connection, origin: str) -> LogState:
    log = await tlog.state(connection, origin)
    if log is None:
        raise StaleTreeError(origin, 0, -1)
    require_unfrozen(log)
    return log


def require_unfrozen(log: LogState) -> None:
    """Raise FrozenError if nothing may be signed over a log any more."""
    if log.frozen_reason is not None:
        raise FrozenError(f"the log {log.origin} is frozen: {log.frozen_reason}")


def _completeness(parked: int, reason: str) -> Condition:
    if not parked:
        return Condition(
            type="LeavesComplete", status="True", reason="Complete", message="every attempt gets its leaf in time"
        )
    message = f"{parked} attempts cannot be put into the log and are tried again later; the attestor's log names them"
    return Condition(
        type="LeavesComplete", status="False", reason="Parked", message=message + (f": {reason}" if reason else "")
    )


def _gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one that decides what follows: a log that must be frozen, a person who must act, anything else."""
    for kind in (MismatchError, RefusedError, BaseException):
        for error in group.exceptions:
            if isinstance(error, kind):
                return error
    raise AssertionError(group)


def _is_same(row: LogRow, led: LogRow) -> bool:
    """Whether the configuration still names the log that is led; its intervals may be others."""
    return (row.namespace, row.name, row.origin) == (led.namespace, led.name, led.origin)

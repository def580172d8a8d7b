"""Group commit: many requests share one durable transaction, and each is answered only after it.

`app` hands over one event at a time and waits for its outcome; a committer takes whatever has gathered and stores it
with one statement. Nothing waits for a batch to fill: an idle committer commits a single event at once, and while it is
away at the disk the next batch gathers by itself.

Nobody fills the queue alone. An endpoint may have no more waiting than there is room left, so that those that have
nothing waiting find room however many others are noisy.

Every wait ends. A commit has a deadline; while no committer holds a working connection all events are refused at once,
those that wait already included, so a request waits at most for the commit before its own and for its own.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from kapsel_receiver.hints import Hints
from kapsel_receiver.metrics import Metrics
from kapsel_receiver.problems import Refusal
from kapsel_runtime.backoff import delays
from kapsel_store import configuration, events
from kapsel_store.database import Connection, Pool, drop, is_away
from kapsel_store.errors import PartlyStoredError
from kapsel_store.rows import Accepted, Configuration, Duplicate, NewEvent

Outcome = Accepted | Duplicate | Refusal
_Waiting = tuple[NewEvent, "asyncio.Future[Outcome]", "_Share"]

COMMITTERS: Final = 2  # the second works when one commit at a time is not enough, or its connection is lost
SECOND: Final = 64  # events that wait while a commit is under way: fewer are cheaper in the commit that follows it
OVERLOADED_RETRY: Final = 1
FEW: Final = 8  # events in a commit that tells the deliverers by itself; a larger one must not hold up the others
AWAY_RETRY: Final = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait, how much may share a commit, and how long a commit may take."""

    queue_events: int = 4096
    queue_bytes: int = 67_108_864
    batch_events: int = 512
    batch_bytes: int = 8_388_608
    commit_timeout: float = 5.0


def refuses_rows(error: BaseException) -> bool:
    """Whether the database refused the content of a statement, so that the same rows will never pass."""
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError)  # asyncpg could not encode a value and sent nothing
    return isinstance(
        error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError | asyncpg.ProgramLimitExceededError
    )


@dataclass(slots=True)
class _Share:
    """What waits of one endpoint."""

    events: int = 0
    size: int = 0


_NOTHING: Final = _Share()  # never written to

UNAVAILABLE: Final = Refusal(
    code="storage_unavailable", detail="nothing was stored; send it again later", retry_after=AWAY_RETRY
)


class Intake:
    """Takes events in until `close`, and stores them."""

    def __init__(self, pool: Pool, metrics: Metrics, hints: Hints, bounds: Bounds, rng: random.Random) -> None:
        self._pool = pool
        self._metrics = metrics
        self._hints = hints
        self._bounds = bounds
        self._rng = rng
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._shares: dict[UUID, _Share] = {}  # by endpoint
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closing = asyncio.Event()
        self._committing = 0
        self._working = 0  # committers with a connection that works, as far as they know
        self._hangs = 0  # commits that missed their deadline
        self._reason = "not connected yet"
        self._suspended: frozenset[UUID] = frozenset()
        metrics.queue_depth.set_function(lambda: len(self._queue))
        # In a list first: metrics are written by another thread.
        metrics.queue_largest.set_function(lambda: max((one.events for one in list(self._shares.values())), default=0))
        metrics.database_up.set_function(lambda: int(self._working > 0))

    def configure(self, configuration: Configuration) -> None:
        """Tell no deliverer of what waits because its destination is suspended: when that ends, they learn of it."""
        self._shares = {one: share for one, share in self._shares.items() if share.events}  # endpoints come and go
        self._suspended = frozenset(destination.id for destination in configuration.destinations if destination.suspend)

    def check(self) -> str | None:
        """Return why no event can be stored now, for the health check."""
        return None if self._working else self._reason

    def refusal(self, endpoint_id: UUID) -> Refusal | None:
        """Return why the next event of an endpoint would be refused; `app` asks before it reads a body."""
        return self._refusal(self._shares.get(endpoint_id, _NOTHING))

    def _refusal(self, share: _Share) -> Refusal | None:
        if not self._working:
            return UNAVAILABLE
        bounds, waiting = self._bounds, len(self._queue)
        if share.events >= bounds.queue_events - waiting or share.size >= bounds.queue_bytes - self._queued_bytes:
            return Refusal(
                code="overloaded",
                detail=f"{waiting} webhooks wait to be stored, {share.events} of them for this endpoint",
                retry_after=OVERLOADED_RETRY,
            )
        return None

    def store(self, event: NewEvent) -> asyncio.Future[Outcome]:
        """Store one event; done after the commit that holds it, or when it is certain that nobody works on it."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        share = self._shares.get(event.endpoint_id)
        if share is None:
            share = self._shares[event.endpoint_id] = _Share()
        refusal = self._refusal(share)
        if refusal is not None:
            outcome.set_result(refusal)
            return outcome
        share.events += 1
        share.size += len(event.body)
        self._queue.append((event, outcome, share))
        self._queued_bytes += len(event.body)
        if not self._committing or len(self._queue) >= SECOND:
            self._wake()
        return outcome

    async def run(self) -> None:
        """Commit until `close` was called and nothing waits any more."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(COMMITTERS):
                tasks.create_task(self._committer())

    def close(self) -> None:
        """Commit what waits, then let `run` return; the caller has stopped taking requests."""
        self._closing.set()
        self._wake_all()

    async def _committer(self) -> None:
        waits = self._waits()
        while not self._closing.is_set() or self._queue:
            if await self._commit_on_one_connection():
                waits = self._waits()
            self._refuse_waiting()
            if not self._closing.is_set():
                await self._pause(next(waits))

    async def _commit_on_one_connection(self) -> bool:
        """Connect and commit until the connection fails or the end; return whether any commit went well."""
        try:
            async with self._pool.acquire(timeout=self._bounds.commit_timeout) as connection:
                try:
                    async with asyncio.timeout(self._bounds.commit_timeout):
                        await configuration.generation(connection)  # a pool may hand out what broke while it lay there
                    return await self._serve(connection)
                finally:
                    drop(connection)  # broken, or needed no more; giving it back politely could hang
        except Exception as error:
            if not is_away(error):
                raise
            self._away(error)
            return False

    def _waits(self) -> Iterator[float]:
        return delays(0.05, 2.0, self._rng)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _serve(self, connection: Connection) -> bool:
        """Commit batches until the connection fails or the end; return whether any commit went well."""
        connection.add_termination_listener(lambda _: self._wake_all())
        self._working += 1
        self._reason = "the connection was lost"
        if self._working == 1:
            logger.info("the database can be written to")
        committed = False
        try:
            while (batch := await self._next_batch(connection)) is not None:
                if not await self._commit(connection, batch):
                    break
                committed = True
        finally:
            self._working -= 1
            if self._queue:
                self._wake()  # whoever woke this committer counted on it
        return committed

    async def _next_batch(self, connection: Connection) -> list[_Waiting] | None:
        """Wait for events and take what is there; None once the connection is lost or suspected, or at the end."""
        hangs = self._hangs
        while not connection.is_closed():
            if self._queue:
                return self._take()
            if self._closing.is_set() or self._hangs != hangs:
                return None
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(woken)
            await woken
        return None

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < self._bounds.batch_events and size < self._bounds.batch_bytes:
            waiting = self._queue.popleft()
            event, _, share = waiting
            size += len(event.body)
            share.events -= 1
            share.size -= len(event.body)
            batch.append(waiting)
        self._queued_bytes -= size
        return batch

    async def _commit(self, connection: Connection, batch: Sequence[_Waiting]) -> bool:
        """Store a batch and answer it; return whether the connection can go on."""
        self._committing += 1
        try:
            async with asyncio.timeout(self._bounds.commit_timeout):
                await self._insert(connection, batch)
        except Exception as error:  # noqa: BLE001 - the edge of the committer: whatever it is, it is answered
            self._answer_failure(batch, error)
            return False
        finally:
            self._committing -= 1
        return True

    async def _insert(self, connection: Connection, batch: Sequence[_Waiting]) -> None:
        due = {delivery.destination_id for event, _, _ in batch for delivery in event.deliveries} - self._suspended
        at_once = len(batch) <= FEW
        try:
            outcomes = await events.insert(connection, [event for event, _, _ in batch], hint=due if at_once else ())
        except Exception as error:
            if not refuses_rows(error):
                raise
            await self._isolate(connection, batch, error)
            return
        # Durable from here. A crash before the answers leaves callers without a 202: they send again, as duplicates.
        self._metrics.batch_size.observe(len(batch))
        if due and not at_once:
            self._hints.tell(due)
        for (_, waiting, _), outcome in zip(batch, outcomes, strict=True):
            if not waiting.done():
                waiting.set_result(outcome)

    async def _isolate(self, connection: Connection, batch: Sequence[_Waiting], error: Exception) -> None:
        """Halve a batch that holds a row the database refuses, until that row stands alone."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._insert(connection, batch[:middle])
            await self._insert(connection, batch[middle:])
            return
        ((event, waiting, _),) = batch
        facts = {"event_id": str(event.id), "correlation_id": event.correlation_id}
        logger.error("the database refused one webhook", extra=facts, exc_info=error)
        self._metrics.commit_failures.labels("refused_row").inc()
        waiting.set_result(Refusal(code="not_storable", detail="the database refuses its content"))

    def _answer_failure(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Refuse a batch whose statement failed.

        Only an error that the server reported about the statement says that nothing was stored, if none was committed
        before it. After a lost connection, a server that shut down or a missed deadline the commit may have happened:
        the caller is asked to send again, and the idempotency key recognises the webhook if it is there. Without a key
        it is then stored twice, which is better than not at all.
        """
        self._away(error.failed if isinstance(error, PartlyStoredError) else error)
        if isinstance(error, TimeoutError):
            # The idle committer's connection may hang as well, and should not cost a request to find out.
            self._hangs += 1
            self._wake_all()
        certain = isinstance(error, asyncpg.PostgresError) and not isinstance(
            error, asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError
        )
        refusal = UNAVAILABLE if certain else self._uncertain()
        for _, waiting, _ in batch:
            if not waiting.done():
                waiting.set_result(refusal)

    def _away(self, error: Exception) -> None:
        away = is_away(error)
        reason = "away" if away else "error"
        self._metrics.commit_failures.labels(reason).inc()
        said = str(error) or type(error).__name__
        if said != self._reason or not away:
            logger.warning("events cannot be stored: %s", said, exc_info=None if away else error)
        self._reason = said

    def _refuse_waiting(self) -> None:
        """Answer all that wait, unless another committer still works."""
        if self._working:
            return
        while self._queue:
            for _, waiting, _ in self._take():
                if not waiting.done():
                    waiting.set_result(UNAVAILABLE)

    def _uncertain(self) -> Refusal:
        return Refusal(
            code="storage_uncertain",
            detail="it may or may not have been stored; send it again with the same id",
            retry_after=AWAY_RETRY,
        )

    def _wake(self) -> None:
        while self._idle:
            woken = self._idle.popleft()
            if not woken.done():
                woken.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._idle:
            self._wake()

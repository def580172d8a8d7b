"""Bugs that are planted to see that the harness finds them; nothing of this is in what ships.

A bug is a text of a statement replaced by another one, or a function by a worse one, in the process of one run. The
seeds of each have found it, so that finding it again takes few runs as long as the worlds stay as they are.
"""

import asyncio
import dataclasses
import random
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

from kapsel_attestor import sequencer
from kapsel_attestor.fence import FileFence
from kapsel_deliverer import breakers, circuit, clock, retry, targets, worker
from kapsel_deliverer.lanes import Lanes
from kapsel_deliverer.worker import Worker
from kapsel_receiver import intake
from kapsel_receiver.intake import Intake
from kapsel_store import deliveries, ids, queries
from kapsel_store.rows import Accepted
from kapsel_store.states import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bug:
    """How to plant it, and seeds that find it."""

    plant: Callable[[], None]
    what: str
    seeds: tuple[int, ...] = ()


BUGS: dict[str, Bug] = {}


def plant(name: str) -> None:
    """Plant a bug in this process."""
    BUGS[name].plant()


def _bug(what: str, *seeds: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def keep(plant: Callable[[], None]) -> Callable[[], None]:
        BUGS[plant.__name__.strip("_").replace("_", "-")] = Bug(plant=plant, what=what, seeds=seeds)
        return plant

    return keep


def _rewrite(name: str, *changes: tuple[str, str]) -> None:
    """Replace parts of a statement; each has to be there."""
    file, _, query = name.partition(".")
    texts = queries._file(file)
    for old, new in changes:
        assert old in texts[query], f"{name} does not say {old!r}: this bug has to be planted anew"
        texts[query] = texts[query].replace(old, new)
    queries.statement.cache_clear()


@_bug("a result moves its delivery although its lease was lost")
def _lost_fence() -> None:
    _rewrite("deliveries.record", (" AND d.lease_id = i.lease_id", ""))


@_bug("leases that ran out are found by nobody")
def _no_rescue() -> None:
    _rewrite("deliveries.rescue", ("WHERE state = 'sending' AND", "WHERE false AND"))


@_bug("a result that is recorded once more, its answer having been lost, is a second attempt")
def _double_record() -> None:
    record = deliveries.record

    async def recorded(connection: Any, results: Any, *more: Any, **options: Any) -> Any:
        anew = [one._replace(attempt=one.attempt._replace(id=ids.new())) for one in results]
        return await record(connection, anew, *more, **options)

    deliveries.record = recorded


@_bug("each failure counts twice in the circuit")
def _double_count() -> None:
    observe = circuit.observe

    def doubled(row: Any, breaker: Any, observed: Any, now: Any, *more: Any) -> Any:
        return observe(row, breaker, dataclasses.replace(observed, failures=2 * observed.failures), now, *more)

    breakers.observe = circuit.observe = doubled


@_bug("an open circuit keeps nobody away")
def _open_door() -> None:
    set_circuit = Lanes.set_circuit

    def set_open(self: Any, destination_id: Any, probes: Any, *more: Any) -> Any:
        return set_circuit(self, destination_id, None, *more)

    Lanes.set_circuit = set_open  # type: ignore[method-assign]


@_bug("202 is said before the commit", 1)
def _early_answer() -> None:
    store = Intake.store

    async def stored(self: Any, event: Any) -> Any:
        if (refusal := self.refusal()) is not None:
            return refusal
        task = asyncio.ensure_future(store(self, event))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Accepted(event_id=event.id)

    Intake.store = stored  # type: ignore[method-assign]


@_bug("an idempotency key that is known does not keep the event out")
def _key_not_unique() -> None:
    _rewrite("events.insert", ("WHERE key IS NULL OR id IN (SELECT event_id FROM first_seen)", ""))


@_bug("maxAttempts is not looked at")
def _endless_retry() -> None:
    decide = retry.decide

    def decided(policy: Any, *more: Any, **options: Any) -> Any:
        return decide(dataclasses.replace(policy, max_attempts=10**6), *more, **options)

    worker.decide = retry.decide = decided


@_bug("Retry-After is not heeded")
def _impatience() -> None:
    decide = retry.decide

    def decided(policy: Any, *more: Any, **options: Any) -> Any:
        return decide(dataclasses.replace(policy, honour_retry_after=False), *more, **options)

    worker.decide = retry.decide = decided


@_bug("the wait between two tries is a quarter of what is declared")
def _hurry() -> None:
    backoff = retry.backoff

    def hurried(declared: Any, number: int, rng: random.Random) -> timedelta:
        return backoff(declared, number, rng) / 4

    retry.backoff = hurried


@_bug("a lease is not renewed while its try goes on")
def _no_renewal() -> None:
    _rewrite("deliveries.renew", ("WHERE state = 'sending' AND", "WHERE false AND"))


@_bug("a claim also takes what another one is trying")
def _shared_claim() -> None:
    _rewrite(
        "deliveries.claim",
        ("WHERE state = 'pending' AND destination_id", "WHERE destination_id"),
        ("AND d.state = 'pending'", ""),
    )


@_bug("an attempt is recorded without being put before the sequencer")
def _not_queued() -> None:
    _rewrite("deliveries.record", ("SELECT id FROM recorded\n)", "SELECT id FROM recorded WHERE false\n)"))


@_bug("the sequencer takes away what came in while it was at work")
def _skipping_sequencer() -> None:
    _rewrite("tlog.take", ("WHERE attempt_id = ANY ($1::uuid[])", "WHERE $1::uuid[] IS NOT NULL"))


@_bug("the sequencer leaves the last attempt of a batch out, and takes it for done")
def _short_batch() -> None:
    batch = sequencer.leaves.batch

    def shortened(waiting: Any, *more: Any) -> Any:
        return batch(waiting[:-1] if len(waiting) > 2 else waiting, *more)

    sequencer.leaves.batch = shortened


@_bug("the machine's clock decides when a delivery is too old")
def _wrong_clock() -> None:
    clock.DatabaseClock.now = lambda self: clock.datetime.now(UTC)  # type: ignore[method-assign]


@_bug("what no lease is known of is never polled for")
def _only_hints() -> None:
    async def no_wait(*_: Any) -> None:
        return None

    deliveries.next_due = no_wait
    look = Worker._look

    async def looked(self: Any, now: float) -> None:
        if self._hinted:
            await look(self, now)
        self._poll_at = now + 10**9
        self._due.drop_until(now)

    Worker._look = looked  # type: ignore[method-assign]


@_bug("what is past its age is not ended")
def _no_expiry() -> None:
    _rewrite("deliveries.expire", ("WHERE state = 'pending' AND", "WHERE false AND"))


@_bug("a commit whose answer was lost is said to have failed", 1)
def _false_certainty() -> None:
    Intake._uncertain = lambda self: intake.UNAVAILABLE  # type: ignore[method-assign]


@_bug("a failed try ends its delivery")
def _one_try() -> None:
    decide = retry.decide

    def decided(policy: Any, number: int, *more: Any, **options: Any) -> Any:
        found = decide(policy, number, *more, **options)
        if number >= 2 and found.state is State.PENDING:
            return retry.Decision(state=State.EXHAUSTED)
        return found

    worker.decide = retry.decide = decided


@_bug("each try is counted twice in the metrics")
def _vain_metrics() -> None:
    tried = targets.Meters.tried

    def twice(self: Any, *more: Any) -> None:
        tried(self, *more)
        tried(self, *more)

    targets.Meters.tried = twice  # type: ignore[method-assign]


@_bug("heads are published before the fence has them")
def _no_fence() -> None:
    FileFence.swap = lambda self, old, new: None  # type: ignore[method-assign]

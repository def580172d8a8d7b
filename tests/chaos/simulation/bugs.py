"""Bugs that are planted to see that the harness finds them; nothing of this is in what ships.

A bug is a text of a statement replaced by another one, or a function by a worse one, in the process of one run. With
each stands a seed that finds it, and what the oracle then says: whatever else it says is not what it was planted for.
"""

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Any

from kapsel_deliverer import batches, breakers, oauth2, retry, sender, signing, targets, worker
from kapsel_deliverer.lane import Lane
from kapsel_deliverer.lanes import Lanes
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.replayer import Replayer
from kapsel_deliverer.shapes import Misshapen
from kapsel_deliverer.shaping import Shaper
from kapsel_deliverer.worker import Worker
from kapsel_receiver import intake, ordering
from kapsel_receiver.intake import Intake
from kapsel_store import circuits, deliveries, limits, queries
from kapsel_store.reasons import fault_of
from kapsel_store.rows import Accepted
from kapsel_store.states import State
from simulation.scenario import Scenario, scenario


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bug:
    """How to plant it, the seed that finds it, and words that the oracle has for it alone."""

    plant: Callable[[], None]
    what: str
    says: str
    seed: int
    among: Callable[[Scenario], bool]  # the worlds that might find it


BUGS: dict[str, Bug] = {}


def plant(name: str) -> None:
    """Plant a bug in this process."""
    BUGS[name].plant()


def seeds(name: str, count: int, first: int = 0) -> list[int]:
    """Return the first seeds from one on whose worlds might find a bug."""
    return list(islice((seed for seed in range(first, 10**6) if BUGS[name].among(scenario(seed))), count))


def _any(_: Scenario) -> bool:
    return True


def _unanswered(world: Scenario) -> bool:
    return any(window.only for window in world.windows)


def _resting(world: Scenario) -> bool:
    return bool(world.rests)


def _logging_in(world: Scenario) -> bool:
    return bool(world.logins)


def _naming_in_the_form(world: Scenario) -> bool:
    return any(login.authentication == "Post" for login in world.logins.values())


def _together(world: Scenario) -> bool:
    return any(row.batch is not None for row in world.configuration.destinations)


def _dry(world: Scenario) -> bool:
    return any(ask.replay is not None and ask.replay.dry_run for ask in world.asks)


def _asking(what: str) -> Callable[[Scenario], bool]:
    return lambda world: any(ask.what == what for ask in world.asks)


def _bug(
    what: str, *, says: str, seed: int, among: Callable[[Scenario], bool] = _any
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def keep(plant: Callable[[], None]) -> Callable[[], None]:
        name = plant.__name__.strip("_").replace("_", "-")
        BUGS[name] = Bug(plant=plant, what=what, says=says, seed=seed, among=among)
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


@_bug("leases that ran out are found by nobody", says="a delivery never ended", seed=122)
def _no_rescue() -> None:
    _rewrite("deliveries.rescue", ("WHERE state = 'sending' AND", "WHERE false AND"))


@_bug("202 is said before the commit", says="accepted and lost", seed=139)
def _early_answer() -> None:
    store = Intake.store

    def stored(self: Any, event: Any) -> Any:
        said = asyncio.get_running_loop().create_future()
        said.set_result(self.refusal(event.endpoint_id) or Accepted(event_id=event.id))
        store(self, event)
        return said

    Intake.store = stored  # type: ignore[method-assign]


@_bug(
    "an idempotency key that is known does not keep the event out",
    says="events are stored under one idempotency key",
    seed=185,
)
def _key_not_unique() -> None:
    _rewrite("events.insert", ("WHERE key IS NULL OR id IN (SELECT event_id FROM first_seen)", ""))


@_bug("maxAttempts is not looked at", says="are allowed", seed=95)
def _endless_retry() -> None:
    decide = retry.decide

    def decided(policy: Any, *more: Any, **options: Any) -> Any:
        return decide(dataclasses.replace(policy, max_attempts=10**6), *more, **options)

    worker.decide = retry.decide = decided


@_bug("the wait between two tries is a quarter of what is declared", says="came after", seed=185)
def _hurry() -> None:
    backoff = retry.backoff

    def hurried(declared: Any, number: int, rng: random.Random) -> timedelta:
        return backoff(declared, number, rng) / 4

    retry.backoff = hurried


@_bug("a lease is not renewed while its try goes on", says="still did", seed=175)
def _no_renewal() -> None:
    _rewrite("deliveries.renew", ("WHERE state = 'sending' AND", "WHERE false AND"))


@_bug("an attempt is recorded without being put before the sequencer", says="has 0 leaves", seed=135)
def _not_queued() -> None:
    _rewrite("deliveries.record", ("SELECT id FROM recorded\n)", "SELECT id FROM recorded WHERE false\n)"))


@_bug("what no lease is known of is never polled for", says="a delivery never ended", seed=120)
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


@_bug("what is past its age is not ended", says="a delivery never ended", seed=109)
def _no_expiry() -> None:
    _rewrite("deliveries.expire", ("WHERE state = 'pending' AND", "WHERE false AND"))


@_bug("a commit whose answer was lost is said to have failed", says="nothing was stored, it said, and it was", seed=9)
def _false_certainty() -> None:
    Intake._uncertain = lambda self: intake.UNAVAILABLE  # type: ignore[method-assign]


@_bug("a failed try ends its delivery", says="given up too early", seed=185)
def _one_try() -> None:
    decide = retry.decide

    def decided(policy: Any, number: int, *more: Any, **options: Any) -> Any:
        found = decide(policy, number, *more, **options)
        if number >= 2 and found.state is State.PENDING:
            return retry.Decision(state=State.EXHAUSTED)
        return found

    worker.decide = retry.decide = decided


@_bug("each try is counted twice in the metrics", says="attempts, and made", seed=135)
def _vain_metrics() -> None:
    tried = targets.Meters.tried

    def twice(self: Any, *more: Any) -> None:
        tried(self, *more)
        tried(self, *more)

    targets.Meters.tried = twice  # type: ignore[method-assign]


def _counted_twice(name: str) -> None:
    """Have what a metric of the deliverer counts counted again."""
    make = DelivererMetrics.__init__

    def made(self: Any, *more: Any) -> None:
        make(self, *more)
        metric = getattr(self, name)
        count = metric.inc

        def twice(amount: float = 1) -> None:
            count(amount)
            count(amount)

        metric.inc = twice

    DelivererMetrics.__init__ = made  # type: ignore[method-assign]


@_bug("a lease that ran out is counted twice in the metrics", says="as delivery_rescued_total{}", seed=122)
def _vain_rescues() -> None:
    _counted_twice("rescued")


@_bug("a delivery that is given up is counted twice in the metrics", says="deliveries given up, and", seed=1)
def _vain_ends() -> None:
    gave_up = DelivererMetrics.gave_up

    def twice(self: Any, *more: Any) -> None:
        gave_up(self, *more)
        gave_up(self, *more)

    DelivererMetrics.gave_up = twice  # type: ignore[method-assign]


@_bug(
    "what a replay makes is counted twice in the metrics",
    says="are counted that replays made",
    seed=3,
    among=_asking("replay"),
)
def _vain_replays() -> None:
    _counted_twice("replayed")


@_bug("a circuit that is not closed is shown as closed", says="for the circuit of", seed=0)
def _vain_circuits() -> None:
    breakers.DISABLED = 0  # type: ignore[misc]
    breakers.CIRCUIT_STATES = dict.fromkeys(breakers.CIRCUIT_STATES, 0)  # type: ignore[misc]


@_bug("a failed try is counted twice by its reason in the metrics", says="as webhook_delivery_failures_total", seed=1)
def _vain_failures() -> None:
    tried = targets.Meters.tried

    def twice(self: Any, outcome: Any, duration: timedelta) -> None:
        tried(self, outcome, duration)
        if outcome.name != "delivered":
            self._metrics.failures.labels(fault_of(outcome.reason), outcome.reason).inc()

    targets.Meters.tried = twice  # type: ignore[method-assign]


@_bug("a claim takes what waits behind others of its key", says="in the line of", seed=5)
def _order_ignored() -> None:
    _rewrite(
        "deliveries.claim",
        ("due_at <= now() AND NOT held", "(due_at <= now() OR held)"),
        ("SET state = 'sending',", "SET held = false, state = 'sending',"),
    )


@_bug("the receiver stores deliveries without their order key", says="is not in one line", seed=1)
def _order_forgotten() -> None:
    ordering._placed = lambda delivery, _: delivery


@_bug("a filter that fails lets the event pass", says="its filter fails", seed=9)
def _filter_fails_open() -> None:
    wants = Shaper.wants

    def wanted(self: Any, *more: Any) -> Any:
        found = wants(self, *more)
        return True if isinstance(found, Misshapen) else found

    Shaper.wants = wanted  # type: ignore[method-assign]


@_bug("each deliverer counts the tries under way for itself", says="tries under way, and takes", seed=0)
def _slots_of_ones_own() -> None:
    allot = limits.allot

    def allotted(_: Any, *more: Any) -> Any:
        return allot({}, *more)

    limits.allot = allotted


@_bug("a bucket is full again whenever somebody draws from it", says="its rate allows", seed=4)
def _full_bucket() -> None:
    draw = limits.draw

    def drawn(_: Any, *more: Any) -> Any:
        return draw(None, *more)

    limits.draw = drawn


@_bug("a retry leaves its order key behind", says="which it stands for", seed=8, among=_asking("retry"))
def _retry_out_of_line() -> None:
    _rewrite("deliveries.retry", ("now() + $3, id, order_key", "now() + $3, id, NULL"))


@_bug("who cancels is told so, and the delivery goes out", says="was cancelled, and", seed=50, among=_asking("cancel"))
def _vain_cancel() -> None:
    _rewrite(
        "deliveries.cancel",
        ("UPDATE deliveries SET state = 'cancelled', finished_at = now(), last_reason = 'cancelled'\nWHERE", ""),
        ("state = 'pending' AND id = (\n    SELECT", "SELECT"),
        ("FOR UPDATE SKIP LOCKED\n)\nRETURNING id", "FOR UPDATE SKIP LOCKED"),
    )


@_bug(
    "a replay takes the first of several deliveries for the newest", says="and means", seed=10, among=_asking("replay")
)
def _replays_the_oldest() -> None:
    for name in ("replays.matched_of_events", "replays.matched_of_not_delivered"):
        _rewrite(name, ("(n.created_at, n.id) > (d.created_at, d.id)", "(n.created_at, n.id) < (d.created_at, d.id)"))


@_bug("a transform that fails lets the event go out as it came", says="its transform fails", seed=5)
def _transform_fails_open() -> None:
    transformed = Shaper.transformed

    def shaped(self: Any, target: Any, delivery: Any) -> Any:
        found = transformed(self, target, delivery)
        return (delivery, {}) if isinstance(found, Misshapen) else found

    Shaper.transformed = shaped  # type: ignore[method-assign]


@_bug("a transform makes the headers, and the body goes out as it came", says="had the body", seed=5)
def _body_not_made() -> None:
    transformed = Shaper.transformed

    def shaped(self: Any, target: Any, delivery: Any) -> Any:
        found = transformed(self, target, delivery)
        return found if isinstance(found, Misshapen) else (delivery, found[1])

    Shaper.transformed = shaped  # type: ignore[method-assign]


@_bug("the log says of a body that was made that it is what came", says="the hash of another body", seed=5)
def _made_body_not_said() -> None:
    send = Worker._send

    async def sent(self: Any, *more: Any) -> Any:
        return (await send(self, *more))._replace(sent_hash=None)

    Worker._send = sent  # type: ignore[method-assign]


@_bug("a body is let go of when it was sent once, and what is tried again has none", says="had the body b''", seed=0)
def _empty_body() -> None:
    send = Worker._send

    async def sent(self: Any, target: Any, delivery: Any, now: Any) -> Any:
        return await send(self, target, delivery if delivery.number == 1 else delivery._replace(body=b""), now)

    Worker._send = sent  # type: ignore[method-assign]


@_bug(
    "a report whose COMMIT was not answered is taken for made",
    says="has lost count",
    seed=17,
    among=_unanswered,
)
def _commit_believed() -> None:
    async def believed(*_: Any) -> bool:
        return True

    circuits.is_committed = believed


@_bug(
    "a report whose COMMIT was not answered is made again",
    says="failures; there were",
    seed=17,
    among=_unanswered,
)
def _commit_doubted() -> None:
    async def doubted(*_: Any) -> bool:
        return False

    circuits.is_committed = doubted


@_bug("a replay makes two of each delivery that it means", says="was asked for once", seed=3, among=_asking("replay"))
def _replayed_twice() -> None:
    _rewrite(
        "replays.enqueue",
        ("SELECT i.made, i.event_id", "SELECT CASE n WHEN 1 THEN i.made ELSE md5(i.made::text)::uuid END, i.event_id"),
        ("JOIN taken USING (made)\n", "JOIN taken USING (made) CROSS JOIN generate_series(1, 2) AS n\n"),
    )


@_bug("a replay that was stopped goes on", says="was stopped, and made", seed=268, among=_asking("stop"))
def _stopped_in_vain() -> None:
    _rewrite("replays.take", ("suspend OR removed_at IS NOT NULL AS", "suspend AS"), ("removed_at IS NULL", "true"))
    _rewrite("replays.running", ("removed_at IS NULL", "true"))


@_bug(
    "a dry run makes what it counts",
    says="is a dry run, and made",
    seed=68,
    among=_dry,
)
def _wet_run() -> None:
    count = Replayer._count

    async def counted(self: Any, connection: Any, run: Any) -> Any:
        if run.dry_run:
            await self._enqueue(connection, run)
        return await count(self, connection, run)

    Replayer._count = counted  # type: ignore[method-assign]


@_bug(
    "a destination that is suspended is tried on",
    says="after it was suspended",
    seed=8,
    among=_resting,
)
def _suspended_in_vain() -> None:
    configure = Lanes._configure

    def configured(self: Any, destination_id: Any, destination: Any, now: float) -> None:
        configure(self, destination_id, dataclasses.replace(destination, suspend=False), now)

    Lanes._configure = configured  # type: ignore[method-assign]


@_bug(
    "what blocked a line goes before what waits each time that it is asked for, also when nothing is blocked any more",
    says="which was accepted before it",
    seed=150,
    among=_asking("insist"),
)
def _always_first() -> None:
    _rewrite(
        "deliveries.retry",
        (
            "d.order_key\n    FROM",
            """d.order_key, (
                SELECT head FROM turns t WHERE t.destination_id = d.destination_id AND t.key = d.order_key
                    AND t.blocked_by IS NULL AND d.state = 'exhausted'
            ) AS first\n    FROM""",
        ),
        ("replay_of, order_key)", "replay_of, order_key, order_number, held, due_at)"),
        (
            "id, order_key\nFROM chosen",
            """id, order_key, first, first IS NOT NULL, CASE WHEN first IS NULL THEN now() ELSE '3000-01-01' END
            FROM chosen""",
        ),
    )


@_bug(
    "what blocked a line goes behind all that waits when it is asked for",
    says="which has the place of what blocked",
    seed=70,
    among=_asking("insist"),
)
def _never_first() -> None:
    _rewrite(
        "deliveries.retry",
        (
            "), marked AS (",
            """), opened AS (
                UPDATE turns t SET blocked_by = NULL, blocked_at = NULL, last = t.last + 1 FROM chosen c
                WHERE t.destination_id = c.destination_id AND t.key = c.order_key AND t.blocked_by = c.id
                RETURNING t.destination_id, t.key, t.head, t.last
            ), noted AS (
                INSERT INTO ended_turns SELECT destination_id, key, head, $1, false FROM opened
            ), marked AS (""",
        ),
        ("replay_of, order_key)", "replay_of, order_key, order_number, held, due_at)"),
        (
            "id, order_key\nFROM chosen",
            """id, order_key, (SELECT last FROM opened), EXISTS (SELECT FROM opened),
                CASE WHEN EXISTS (SELECT FROM opened) THEN '3000-01-01' ELSE now() END
            FROM chosen""",
        ),
    )


@_bug("a token is used beyond its end", says="after its end", seed=7, among=_logging_in)
def _token_for_ever() -> None:
    read = oauth2._read

    def kept(*more: Any) -> Any:
        found = read(*more)
        return dataclasses.replace(found, fresh_until=10.0**9) if isinstance(found, oauth2.Token) else found

    oauth2._read = kept


@_bug("a token that is refused is used again", says="that had been refused", seed=0, among=_logging_in)
def _token_kept() -> None:
    oauth2.Tokens.answered = lambda *_: False  # type: ignore[method-assign]


@_bug("what has got no token goes out without one", says="without a token", seed=12, among=_logging_in)
def _no_token() -> None:
    ask = oauth2.Tokens._ask

    async def asked(self: Any, *more: Any) -> Any:
        found = await ask(self, *more)
        return oauth2.Token(value="none", fresh_until=0.0) if isinstance(found, str) else found

    oauth2.Tokens._ask = asked  # type: ignore[method-assign]


@_bug("a server that gave no token is asked by the next try", says="after it had got none", seed=7, among=_logging_in)
def _token_hurry() -> None:
    oauth2.PAUSE = 0.0  # type: ignore[misc]


@_bug(
    "a client that is to name itself in the form does so in a header",
    says="nobody that its",
    seed=7,
    among=_naming_in_the_form,
)
def _token_by_header() -> None:
    form = oauth2.form
    oauth2.form = lambda declared, *more: form(dataclasses.replace(declared, authentication="Basic"), *more)


@_bug("whom the answer to a batch names is taken for delivered", says="its answer meant", seed=19, among=_together)
def _named_in_vain() -> None:
    batches.failed = lambda *_: set()


@_bug(
    "a batch whose answer names a stranger is taken for delivered, but for whom it names besides",
    says="meant ('refused', 'batch_answer_invalid')",
    seed=25,
    among=_together,
)
def _stranger_ignored() -> None:
    failed = batches.failed

    def found(response: Any, sent: Any) -> Any:
        known = failed(response, sent)
        if known is not None:
            return known
        return {one for one in sent if one.encode() in response.body}

    batches.failed = found


@_bug("the circuit counts each delivery of a batch", says="failures; there were", seed=5, among=_together)
def _batch_counted_by_item() -> None:
    def finished(self: Any, target: Any, request: Any) -> None:
        for leased, tried in request:
            self._finish(leased, target, tried)
        self._ended_trying([leased for leased, _ in request])

    Worker._finish_together = finished  # type: ignore[method-assign]


@_bug("the last delivery of a batch is not recorded", says="was made and is not recorded", seed=1, among=_together)
def _item_lost() -> None:
    finish = Worker._finish_together

    def finished(self: Any, target: Any, request: Any) -> None:
        finish(self, target, request[:-1] or request)
        if len(request) > 1:
            ((leased, tried),) = request[-1:]
            self._lanes.finished(leased, tried.duration.total_seconds(), time.monotonic())
            self._ended_trying([leased])

    Worker._finish_together = finished  # type: ignore[method-assign]


@_bug("what failed goes on in the same company", says="may go together then", seed=5, among=_together)
def _no_halving() -> None:
    batches._most = lambda number, batch, policy: batch.max_events


@_bug("a request is as large as what began together makes it", says="are its most", seed=1, among=_together)
def _no_splitting() -> None:
    packed = batches.packed
    batches.packed = lambda items, _: packed(items, 2**30)


@_bug("a delivery of a batch is signed under another id", says="a wrong body or signature", seed=1, among=_together)
def _signed_by_another_id() -> None:
    headers = sender._headers

    def signed(target: Any, delivery: Any, now: Any, made: Any) -> Any:
        found = headers(target, delivery, now, made)
        if found is None or target.destination.batch is None:
            return found
        by = target.signer.sign("a batch", int(now.timestamp()), delivery.body, now)
        return found | {signing.SIGNATURE: by}

    sender._headers = signed


@_bug("a request of several is signed without its brackets", says="is not signed as a whole", seed=1, among=_together)
def _batch_unsigned() -> None:
    body = batches.body

    class Listed(bytes):
        """What is sent, and not signed as it stands."""

    batches.body = lambda items: Listed(body(items))
    sign = signing.Signer.sign

    def signed(self: Any, said: str, at: int, message: bytes, now: Any) -> Any:
        return sign(self, said, at, message[1:-1] if isinstance(message, Listed) else message, now)

    signing.Signer.sign = signed  # type: ignore[method-assign]


@_bug("deliveries gather half a minute longer than is declared", says="for its batch, and", seed=5, among=_together)
def _gathers_for_long() -> None:
    gather = Lane.gather

    def gathered(self: Any, now: float) -> None:
        interval, self.gathers = self.gathers, self.gathers + 30
        gather(self, now)
        self.gathers = interval

    Lane.gather = gathered  # type: ignore[method-assign]


@_bug("what goes together is measured as one", says="as delivery_batch_size_sum", seed=1, among=_together)
def _vain_batches() -> None:
    make = DelivererMetrics.__init__

    def made(self: Any, *more: Any) -> None:
        make(self, *more)
        observe = self.batch_size.observe
        self.batch_size.observe = lambda _: observe(1)

    DelivererMetrics.__init__ = made  # type: ignore[method-assign]

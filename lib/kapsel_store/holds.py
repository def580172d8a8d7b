"""What keeps a delivery from being tried now, in plain words: a pure function of the facts.

The console's explanation of one asks, and kapsel_store.undelivered for lists, sums and the metric, so that all of them
say the same. What a reason code means stands in kapsel_store.reasons, and nothing of that is repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kapsel_store.facts import MOST_AHEAD, Circumstances, Waiting
from kapsel_store.limits import available
from kapsel_store.reasons import Fault, reason
from kapsel_store.rows import RateLimit
from kapsel_store.schedule import next_step, recovery
from kapsel_store.states import State
from kapsel_store.turns import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One thing that keeps a delivery from being tried now."""

    reason: str  # a code of kapsel_store.reasons
    fault: Fault
    text: str
    until: datetime | None = None


def holds(around: Circumstances, waits: Waiting) -> Iterator[Hold]:
    """Yield what keeps it from being tried, the most lasting first."""
    if waits.state is State.SENDING:
        yield _hold("being_sent", until=waits.lease_expires_at)
    elif waits.state is State.PENDING:
        yield from _held_pending(around, waits)


def why(last_reason: str | None, held: Sequence[Hold]) -> str:
    """Return why one is not delivered: what came of it last, or else what keeps it."""
    if last_reason is not None:
        return last_reason
    return held[0].reason if held else "internal"


def tokens(around: Circumstances) -> int | None:
    """Return how many due deliveries of the destination there are tokens for; None if nothing limits its pace."""
    pace = _pace(around)
    return None if pace is None else int(available(around.bucket, pace, around.now))


def _held_pending(around: Circumstances, waits: Waiting) -> Iterator[Hold]:
    lasting = tuple(_held_for_long(around))
    yield from lasting
    if waits.place is not None and waits.place.held:
        yield _held_in_line(waits.place)
    elif waits.due_at > around.now:
        yield _hold("retry_scheduled", until=waits.due_at)
    elif not lasting:
        yield _held_now(around, waits)


def _held_for_long(around: Circumstances) -> Iterator[Hold]:
    circuit = around.circuit
    if around.removed:
        yield _hold("destination_removed")
    if around.destination.suspend:
        yield _hold("destination_suspended")
    if circuit is not None and circuit.disabled_at is not None:
        yield _hold("destination_disabled", more=f" since {when(circuit.disabled_at)}: {circuit.disabled_reason}")
    elif circuit is not None and circuit.state == "open":
        yield _hold("circuit_open", until=circuit.open_until)
    elif circuit is not None and circuit.state == "half_open":
        yield _hold("circuit_half_open")
    if not around.deliverers:
        yield _hold("no_deliverer")


def _held_in_line(place: Place) -> Hold:
    """Return what a delivery waits for that is not the first of its order key."""
    key = "" if place.shown is None else f" {place.shown}"
    if place.blocked_by is not None and place.blocked_at is not None:
        return _hold("order_key_blocked", more=f": delivery {place.blocked_by}, since {when(place.blocked_at)}")
    return _hold("order_key_waits", more=f"{key}: {_many(place.ahead)}, and {place.head} goes first")


def _held_now(around: Circumstances, waits: Waiting) -> Hold:
    """Return what an otherwise free delivery waits for that is due."""
    ahead = waits.ahead
    before = _many(ahead)
    if around.sending >= around.destination.max_in_flight:
        return _hold("concurrency_full", more=f" ({around.destination.max_in_flight}), and {before} are before it")
    held = (
        _held_by_the_dead(around)
        or _held_by_pace(around, ahead)
        or _held_by_places(around, ahead)
        or _held_by_others_to_come(around, waits)
    )
    return held or _hold("due", more=f"; {before} are before it" if ahead else "")


def _held_by_the_dead(around: Circumstances) -> Hold | None:
    """Return that slots are kept by deliverers that are gone, if they leave none for others."""
    gone = {
        name: grant
        for name, grant in around.slots.items()
        if name not in around.deliverers and grant.until > around.now and grant.count
    }
    count = sum(grant.count for grant in gone.values())
    if not count or around.sending < around.destination.max_in_flight - count:
        return None
    more = f": {count} of {around.destination.max_in_flight} with {', '.join(sorted(gone))}"
    return _hold("slots_held", more=more, until=min(grant.until for grant in gone.values()))


def _held_by_others_to_come(around: Circumstances, waits: Waiting) -> Hold | None:
    """Return that its batch is not sent yet: no longer than the interval, for what is due is taken at the end of it."""
    batch = around.destination.batch
    if batch is None or (until := waits.due_at + batch.interval) <= around.now:
        return None
    more = f": up to {batch.max_events} at once"
    if waits.ahead >= batch.max_events:  # those go first, and how long that takes is for the destination to say
        return _hold("batch_gathers", more=f"{more}, and {_many(waits.ahead)} are before it")
    more += f", after {batch.interval.total_seconds():g} s at the latest"
    return _hold("batch_gathers", more=more, until=until)


def _held_by_places(around: Circumstances, ahead: int) -> Hold | None:
    """Return that no deliverer has a place for it, as each of them says of itself."""
    if around.lacking < len(around.deliverers):
        return None
    return _hold("places_taken", more=f": {around.sending} are under way, and {_many(ahead)} are before it")


def _held_by_pace(around: Circumstances, ahead: int) -> Hold | None:
    """Return that it waits for a token: of its own rate, or of the slower one of a circuit that recovers."""
    pace = _pace(around)
    if pace is None:
        return None
    lacking = ahead + 1 - available(around.bucket, pace, around.now)
    if lacking <= 0:
        return None
    said = f": {_many(ahead)} are before it, at {pace.requests_per_second:g} a second"
    until = None if ahead >= MOST_AHEAD else around.now + timedelta(seconds=lacking / pace.requests_per_second)
    if pace is around.destination.rate_limit:
        return _hold("rate_limited", more=said, until=until)
    return _hold("circuit_recovering", more=said + _next_pace(around))


def _pace(around: Circumstances) -> RateLimit | None:
    """Return how fast may be sent: its own rate, or the slower one of a circuit that has closed lately."""
    breaker, recovering = around.destination.policy.circuit_breaker, None
    if around.circuit is not None and breaker is not None:
        recovering = recovery(around.circuit, breaker, around.now)
    paces = [pace for pace in (around.destination.rate_limit, recovering) if pace is not None]
    return min(paces, key=lambda pace: pace.requests_per_second) if paces else None


def _next_pace(around: Circumstances) -> str:
    breaker = around.destination.policy.circuit_breaker
    step = None if around.circuit is None or breaker is None else next_step(around.circuit, breaker, around.now)
    return " until what waited is through" if step is None else f", and faster from {when(step)} on"


def _many(ahead: int) -> str:
    return f"{min(ahead, MOST_AHEAD)}{' or more' if ahead >= MOST_AHEAD else ''}"


def _hold(code: str, *, more: str = "", until: datetime | None = None) -> Hold:
    known = reason(code)
    return Hold(reason=code, fault=known.fault, text=known.means + more, until=until)


def when(moment: datetime) -> str:
    """Return a time as people read it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

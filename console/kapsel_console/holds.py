"""What keeps a delivery from being tried now, in plain words: a pure function of the facts.

`explanation` asks. What a reason code means stands in kapsel_store.reasons, and nothing of that is repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kapsel_store.facts import MOST_AHEAD, Facts
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


def holds(facts: Facts) -> Iterator[Hold]:
    """Yield what keeps it from being tried, the most lasting first."""
    if facts.delivery.state is State.SENDING:
        yield _hold("being_sent", until=facts.lease_expires_at)
    elif facts.delivery.state is State.PENDING:
        yield from _held_pending(facts)


def _held_pending(facts: Facts) -> Iterator[Hold]:
    lasting = tuple(_held_for_long(facts))
    yield from lasting
    if facts.place is not None and facts.place.held:
        yield _held_in_line(facts.place)
    elif facts.delivery.due_at > facts.now:
        yield _hold("retry_scheduled", until=facts.delivery.due_at)
    elif not lasting:
        yield _held_now(facts)


def _held_for_long(facts: Facts) -> Iterator[Hold]:
    circuit = facts.circuit
    if facts.removed:
        yield _hold("destination_removed")
    if facts.destination.suspend:
        yield _hold("destination_suspended")
    if circuit is not None and circuit.disabled_at is not None:
        yield _hold("destination_disabled", more=f" since {when(circuit.disabled_at)}: {circuit.disabled_reason}")
    elif circuit is not None and circuit.state == "open":
        yield _hold("circuit_open", until=circuit.open_until)
    elif circuit is not None and circuit.state == "half_open":
        yield _hold("circuit_half_open")
    if not facts.deliverers:
        yield _hold("no_deliverer")


def _held_in_line(place: Place) -> Hold:
    """Return what a delivery waits for that is not the first of its order key."""
    key = "" if place.shown is None else f" {place.shown}"
    if place.blocked_by is not None and place.blocked_at is not None:
        return _hold("order_key_blocked", more=f": delivery {place.blocked_by}, since {when(place.blocked_at)}")
    return _hold("order_key_waits", more=f"{key}: {_many(place.ahead)}, and {place.head} goes first")


def _held_now(facts: Facts) -> Hold:
    """Return what an otherwise free delivery waits for that is due."""
    before = _many(facts.ahead)
    if facts.sending >= facts.destination.max_in_flight:
        return _hold("concurrency_full", more=f" ({facts.destination.max_in_flight}), and {before} are before it")
    held = _held_by_the_dead(facts) or _held_by_pace(facts) or _held_by_places(facts)
    return held or _hold("due", more=f"; {before} are before it" if facts.ahead else "")


def _held_by_the_dead(facts: Facts) -> Hold | None:
    """Return that slots are kept by deliverers that are gone, if they leave none for others."""
    gone = {
        name: grant
        for name, grant in facts.slots.items()
        if name not in facts.deliverers and grant.until > facts.now and grant.count
    }
    count = sum(grant.count for grant in gone.values())
    if not count or facts.sending < facts.destination.max_in_flight - count:
        return None
    more = f": {count} of {facts.destination.max_in_flight} with {', '.join(sorted(gone))}"
    return _hold("slots_held", more=more, until=min(grant.until for grant in gone.values()))


def _held_by_places(facts: Facts) -> Hold | None:
    """Return that no deliverer has a place for it, as each of them says of itself."""
    if facts.lacking < len(facts.deliverers):
        return None
    return _hold("places_taken", more=f": {facts.sending} are under way, and {_many(facts.ahead)} are before it")


def _held_by_pace(facts: Facts) -> Hold | None:
    """Return that it waits for a token: of its own rate, or of the slower one of a circuit that recovers."""
    declared, recovering = facts.destination.rate_limit, _recovering(facts)
    paces = [pace for pace in (declared, recovering) if pace is not None]
    if not paces:
        return None
    pace = min(paces, key=lambda pace: pace.requests_per_second)
    lacking = facts.ahead + 1 - available(facts.bucket, pace, facts.now)
    if lacking <= 0:
        return None
    said = f": {_many(facts.ahead)} are before it, at {pace.requests_per_second:g} a second"
    until = None if facts.ahead >= MOST_AHEAD else facts.now + timedelta(seconds=lacking / pace.requests_per_second)
    if pace is declared:
        return _hold("rate_limited", more=said, until=until)
    return _hold("circuit_recovering", more=said + _next_pace(facts))


def _recovering(facts: Facts) -> RateLimit | None:
    """Return the pace at which traffic is let back in, if its circuit has closed lately."""
    breaker = facts.destination.policy.circuit_breaker
    if facts.circuit is None or breaker is None:
        return None
    return recovery(facts.circuit, breaker, facts.now)


def _next_pace(facts: Facts) -> str:
    breaker = facts.destination.policy.circuit_breaker
    step = None if facts.circuit is None or breaker is None else next_step(facts.circuit, breaker, facts.now)
    return " until what waited is through" if step is None else f", and faster from {when(step)} on"


def _many(ahead: int) -> str:
    return f"{min(ahead, MOST_AHEAD)}{' or more' if ahead >= MOST_AHEAD else ''}"


def _hold(code: str, *, more: str = "", until: datetime | None = None) -> Hold:
    known = reason(code)
    return Hold(reason=code, fault=known.fault, text=known.means + more, until=until)


def when(moment: datetime) -> str:
    """Return a time as people read it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

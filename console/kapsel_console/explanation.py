"""Why a delivery is where it is, and when it goes next, in plain words: a pure function of the facts.

`listings` gathers the facts and answers with what is said here; `kapsel explain` prints it. What a reason code means
stands in kapsel_store.reasons, and nothing of that is repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from kapsel_resources import durations
from kapsel_store import ids
from kapsel_store.facts import TRIES, Facts, Leaf, Relative
from kapsel_store.holds import Hold, holds, when, why
from kapsel_store.reasons import NOTHING, REASONS, Fault, fault_of, reason
from kapsel_store.rows import CircuitBreaker, LogRow
from kapsel_store.schedule import disabled_from, is_retried, spread
from kapsel_store.states import FINAL, State

KAPSEL: Final = "kapsel"  # whose value it is when no manifest writes it
FORESEEN: Final = 4  # tries whose times are told
LATE_HEADS: Final = 3  # intervals that an attempt may wait for a head over it before that is told to be late


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A try to come, if those before it fail."""

    number: int
    earliest: datetime
    latest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A try that was made, and what its answer meant."""

    id: UUID
    number: int
    started_at: datetime
    outcome: str
    reason: str
    fault: Fault
    status: int | None
    text: str
    detail: str | None  # what exactly was wrong, where the reason alone does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of the policy and who said it."""

    name: str  # as in a manifest
    value: str
    source: str  # destination, RetryPolicy NAME, Relay or kapsel


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What there is to say of a delivery."""

    summary: str
    reason: str | None  # why it is not delivered; None if it is
    fault: Fault
    held_by: tuple[Hold, ...]
    coming: tuple[Coming, ...]
    expires_at: datetime  # when it ends at the latest
    tried: tuple[Tried, ...]  # the newest first
    policy: tuple[Setting, ...]
    proof: str
    family: tuple[Relative, ...]  # the oldest first; more than one if it was delivered again
    ancestry: str
    advice: tuple[str, ...]


def explain(facts: Facts, log: LogRow | None) -> Explanation:
    """Return what the facts mean; `log` is the log that is declared now, if any."""
    held = tuple(holds(facts, facts.waits))
    code = None if facts.delivery.state is State.DELIVERED else why(facts.delivery.last_reason, held)
    return Explanation(
        summary=_summary(facts, held, code),
        reason=code,
        fault="none" if code is None else fault_of(code),
        held_by=held,
        coming=tuple(_coming(facts, held)),
        expires_at=deadline(facts),
        tried=tuple(_tried(facts)),
        policy=tuple(_policy(facts)),
        proof=_proof(facts, log),
        family=facts.family,
        ancestry=_ancestry(facts),
        advice=tuple(_advice(facts, held, code)),
    )


def deadline(facts: Facts) -> datetime:
    """Return when the delivery ends at the latest: a policy that has become shorter meanwhile counts."""
    delivery = facts.delivery
    return min(delivery.expires_at, delivery.created_at + facts.destination.policy.max_age)


def _summary(facts: Facts, held: tuple[Hold, ...], code: str | None) -> str:
    return _said(facts, held, code) + _lost(facts)


def _lost(facts: Facts) -> str:
    """Return which of the newest tries have left no record: the destination may have got what nobody wrote down."""
    delivery = facts.delivery
    recorded = {listed.attempt.number for listed in facts.tries}
    told = delivery.state is State.SENDING or delivery.last_reason == "lease_expired"  # of the last one
    ended = delivery.attempts - 1 if told else delivery.attempts
    first = 1 if len(recorded) < TRIES else min(recorded)
    lost = [str(number) for number in range(first, ended + 1) if number not in recorded]
    if not lost:
        return ""
    which = f"try {lost[0]}" if len(lost) == 1 else f"tries {', '.join(lost[:-1])} and {lost[-1]}"
    return (
        f" Of {which} there is no record: the deliverer died or hung before it could make one, and the destination "
        "may have got the webhook all the same."
    )


def _said(facts: Facts, held: tuple[Hold, ...], code: str | None) -> str:
    delivery, policy = facts.delivery, facts.destination.policy
    age = _age((delivery.finished_at or facts.now) - delivery.created_at)
    match delivery.state:
        case State.DELIVERED:
            how = reason(delivery.last_reason or "status_200").means
            return f"It was delivered by try {delivery.attempts}, {age} after it was made: {how}."
        case State.EXHAUSTED:
            return f"It was given up {age} after it was made, for {_why_exhausted(facts, code or 'internal')}."
        case State.CANCELLED:
            return f"It was cancelled {age} after it was made: {reason(code or 'cancelled').means}."
        case State.SENDING:
            return f"Try {delivery.attempts} of at most {policy.max_attempts} is under way."
    waits = f"It waits for try {delivery.attempts + 1} of at most {policy.max_attempts}: {held[0].text}."
    last = f" The last try failed: {reason(delivery.last_reason).means}." if delivery.last_reason else ""
    return waits + last


def _why_exhausted(facts: Facts, code: str) -> str:
    """Return which bound ended it, and what came of it last."""
    delivery, policy, means = facts.delivery, facts.destination.policy, reason(code).means
    if REASONS.get(code) is not None and REASONS[code].kind == "end" and code != "lease_expired":
        return means
    if REASONS.get(code) is not None and REASONS[code].kind == "wait":
        return f"{reason('never_tried').means}: {means}"
    if delivery.finished_at is not None and delivery.finished_at >= deadline(facts):
        return f"its age was up after {_times(delivery.attempts)}; the last one: {means}"
    if code == "status_410":
        return means
    if not is_retried(policy, code):
        return f"the policy does not retry this: {means}"
    if delivery.attempts >= policy.max_attempts:
        return f"all {policy.max_attempts} tries are used up; the last one: {means}"
    return f"its age would be up before the next try; after {_times(delivery.attempts)}, the last one: {means}"


def _coming(facts: Facts, held: tuple[Hold, ...]) -> Iterator[Coming]:
    """Yield the tries to come and when: earliest and latest by the declared waits and their jitter."""
    delivery, policy, timeout = facts.delivery, facts.destination.policy, facts.destination.timeout
    if delivery.state in FINAL or facts.removed:
        return
    number = delivery.attempts
    if delivery.state is State.PENDING:
        number += 1
        until = {hold.reason: hold.until for hold in held if hold.until is not None}
        latest = max([facts.now, *until.values()])
        until.pop("batch_gathers", None)  # it may go before that
        earliest = max([facts.now, *until.values()])
        stuck = any(hold.until is None and hold.reason in _INDEFINITE for hold in held)
        if not stuck and number <= policy.max_attempts and earliest < deadline(facts):
            yield Coming(number=number, earliest=earliest, latest=min(latest, deadline(facts)))
        if stuck:
            return
    else:
        earliest = latest = facts.now
    for following in range(number + 1, min(number + FORESEEN, policy.max_attempts + 1)):
        shortest, longest = spread(policy.backoff, following - 1)
        earliest, latest = earliest + shortest, latest + timeout + longest
        if earliest >= deadline(facts):
            return
        yield Coming(number=following, earliest=earliest, latest=min(latest, deadline(facts)))


_INDEFINITE: Final = frozenset(
    {"destination_suspended", "destination_disabled", "no_deliverer", "order_key_blocked", "order_key_waits"}
)


def _tried(facts: Facts) -> Iterator[Tried]:
    for listed in facts.tries:
        row = listed.attempt
        yield Tried(
            id=row.id,
            number=row.number,
            started_at=row.started_at,
            outcome=row.outcome,
            reason=row.reason,
            fault=fault_of(row.reason),
            status=row.response_status,
            text=reason(row.reason).means,
            detail=row.detail,
        )


def _policy(facts: Facts) -> Iterator[Setting]:
    destination, policy = facts.destination, facts.destination.policy
    sources, backoff, breaker = dict(destination.sources), policy.backoff, policy.circuit_breaker
    if backoff.type == "Schedule":
        waits = " ".join(durations.text(wait) for wait in backoff.schedule)
    else:
        waits = (
            f"{durations.text(backoff.initial)}, each {backoff.factor:g} times the last, at most "
            f"{durations.text(backoff.max)}"
        )
    retried = [*policy.retry_status_codes, *(["connection errors"] if policy.retry_connection_errors else [])]
    values = {
        "backoff": f"{waits}, spread by {backoff.jitter:.0%}",
        "maxAttempts": str(policy.max_attempts),
        "maxAge": durations.text(policy.max_age),
        "retryOn": ", ".join(retried) or "nothing",
        "retryAfter": f"honoured up to {durations.text(policy.retry_after_max)}"
        if policy.honour_retry_after
        else "not honoured",
        "circuitBreaker": "none"
        if breaker is None
        else f"opens for {durations.text(breaker.open_for)} when {breaker.failure_ratio:.0%} of {breaker.min_attempts} "
        f"or more tries within {durations.text(breaker.window)} fail, and lets traffic back in over "
        f"{durations.text(breaker.recovery)}",
        **({} if breaker is None else _breaker(breaker)),
        "timeout": durations.text(destination.timeout),
        "maxInFlight": str(destination.max_in_flight),
        "rateLimit": "none"
        if destination.rate_limit is None
        else f"{destination.rate_limit.requests_per_second:g} a second, {destination.rate_limit.burst} at once",
    }
    for name, value in values.items():
        # A member is taken whole from who writes it, with all that is in it.
        yield Setting(name=name, value=value, source=sources.get(name.partition(".")[0], KAPSEL))
    if (batch := destination.batch) is not None:
        value = f"up to {batch.max_events} in a request, and {durations.text(batch.interval)} between those not full"
        yield Setting(name="batch", value=value, source="destination")


def _breaker(breaker: CircuitBreaker) -> dict[str, str]:
    """Return what else a circuit breaker declares, by its place in a manifest."""
    stops = breaker.disable_after
    return {
        "circuitBreaker.probes": f"{breaker.probes} at once when it is half-open",
        "circuitBreaker.drain": "as fast as it recovers"
        if breaker.drain is None
        else f"{breaker.drain:g} a second until what waited is through",
        "circuitBreaker.disableAfter": "never" if stops is None else f"{durations.text(stops)} of nothing but failures",
        "circuitBreaker.warnAt": "never"
        if stops is None
        else f"{breaker.warn_at:.0%} of that, after {durations.text(stops * breaker.warn_at)}",
    }


def _proof(facts: Facts, log: LogRow | None) -> str:
    if facts.event_erased and facts.leaf is not None:
        return "Its event was erased, and what the log says of it with it: nothing can be proven about it any more."
    return proof_status(facts.leaf, log, facts.now)


def proof_status(leaf: Leaf | None, log: LogRow | None, now: datetime) -> str:
    """Return how far the newest attempt is on its way to a proof, and what it waits for if that does not come."""
    if leaf is None:
        return "There is nothing to prove: it was not tried."
    if leaf.published:
        return f"Leaf {leaf.leaf_index} is under a signed head: `kapsel proof {leaf.attempt_id}` proves the last try."
    if leaf.frozen_reason is not None:
        return (
            f"The log is frozen, and no head is signed any more: {leaf.frozen_reason}. See docs/fork-recovery.md."
            if leaf.leaf_index is not None
            else f"The try waits for a leaf in the log that follows; this one is frozen: {leaf.frozen_reason}."
        )
    if leaf.leaf_index is None:
        if leaf.parked_reason is not None:
            return f"The try cannot be put into the log: {leaf.parked_reason}. It is tried again by itself."
        if log is None:
            return "No log is declared, so nothing is proven."
        late = ", and has waited longer than usual: see the attestor's log" if is_late(leaf, log, now) else ""
        return f"The try waits for its leaf{late}."
    waits = f"Leaf {leaf.leaf_index} waits for a signed head over it"
    if log is not None and is_late(leaf, log, now):
        if log.witnessing is not None and log.witnessing.required:
            return (
                f"{waits}, and heads are withheld until {log.witnessing.quorum} of "
                f"{len(log.witnessing.witnesses)} witnesses cosign: see docs/witnesses.md."
            )
        return f"{waits}, and none was signed for longer than usual: see the attestor's log."
    return f"{waits}."


def is_late(leaf: Leaf, log: LogRow, now: datetime) -> bool:
    """Whether a head over the attempt should have been signed by now.

    Its own age says so, from the end of the try on. The newest head does not: after a quiet time it is old though
    nothing is late, and a young one that does not cover the attempt has not helped it.
    """
    waits = now - ids.timestamp(leaf.attempt_id)
    return waits > LATE_HEADS * (log.integrate_interval + max(log.publish_interval, timedelta(seconds=1)))


def _ancestry(facts: Facts) -> str:
    delivery = facts.delivery
    older = [one for one in facts.family if one.id == delivery.replay_of]
    newer = [one for one in facts.family if one.replay_of == delivery.id]
    said = []
    if delivery.replay_of is not None:
        how = f", which ended as {older[0].state}" if older else ", which is gone with its retention"
        said.append(f"It delivers again what delivery {delivery.replay_of} was to deliver{how}.")
    said += [f"It was delivered again as {one.id}, which is {one.state}." for one in newer]
    return " ".join(said) or "It is the only delivery of this event to this destination."


def _advice(facts: Facts, held: tuple[Hold, ...], code: str | None) -> Iterator[str]:
    """Yield what a person may do, the nearest first and nothing twice."""
    if code is None:
        return
    yield from _warning(facts)
    newer = [one for one in facts.family if one.replay_of == facts.delivery.id]
    codes = [*(hold.reason for hold in held), code]
    advised = dict.fromkeys(advice for code in codes if (advice := reason(code).advice))
    # That it waits for its next try asks for nothing; why the last one failed may.
    yield from (one for one in advised if one != NOTHING or len(advised) == 1)
    if facts.delivery.state is State.SENDING:
        yield f"To end it: `kapsel cancel {facts.delivery.id}`, once the try that is under way has ended."
    elif facts.delivery.state is State.PENDING:
        yield f"To end it: `kapsel cancel {facts.delivery.id}`."
    elif newer:
        yield f"See what became of it: `kapsel explain {newer[-1].id}`."
    elif facts.event_erased or not facts.event_there:
        yield "It cannot be delivered again: its event is gone."
    elif facts.removed:
        yield (
            "It cannot be delivered again: its destination was removed, and one of that name that was declared later "
            "is another one. `kapsel replay` with `--state missing` has that one get what came in before it; if the "
            "endpoint was removed too, have the sender send it again."
        )
    elif code != "cancelled":
        yield f"When that is mended: `kapsel retry {facts.delivery.id}`, or a Replay for many."


def _warning(facts: Facts) -> Iterator[str]:
    """Yield that its destination will be disabled, once that is near."""
    circuit, breaker = facts.circuit, facts.destination.policy.circuit_breaker
    if circuit is None or breaker is None or circuit.disabled_at is not None or facts.removed:
        return
    since = disabled_from(circuit, breaker)
    if since is not None and circuit.failing_since is not None:
        yield (
            f"Mend the destination: it has done nothing but fail since {when(circuit.failing_since)}, and the first "
            f"try that fails after {when(since)} disables it."
        )


def _times(count: int) -> str:
    return f"{count} {'try' if count == 1 else 'tries'}"


def _age(span: timedelta) -> str:
    """Return how old something was as people say it: nobody counts the microseconds."""
    whole = timedelta(seconds=int(span.total_seconds()))
    return durations.text(whole) if whole else "less than a second"

"""What a RetryPolicy declares: which reasons are retried, the waits between tries, how a circuit recovers.

Deliverers decide by this, and the console tells why a delivery ended and when next ones are due, by the same rules.
"""

from datetime import datetime, timedelta
from typing import Final

from kapsel_store.circuits import CircuitRow
from kapsel_store.rows import Backoff, CircuitBreaker, Policy, RateLimit

LONGEST: Final = timedelta(days=3650)  # waits beyond this are cut, so that no arithmetic overflows
STEPS: Final = 5  # of a recovery, each twice as fast as the one before
# There was no answer, or none that is HTTP: what `connectionErrors` of a policy means.
NO_ANSWER: Final = frozenset(
    {
        "dns", "connect_refused", "connect_failed", "tls", "certificate", "reset", "bad_response", "connect_timeout",
        "response_timeout",
    }
)  # fmt: skip


def is_retried(policy: Policy, code: str) -> bool:
    """Whether the policy wants another try after one that failed for this reason."""
    if code.startswith("status_"):
        status = code.removeprefix("status_")
        return status in policy.retry_status_codes or f"{status[0]}xx" in policy.retry_status_codes
    return policy.retry_connection_errors or code not in NO_ANSWER


def declared(backoff: Backoff, number: int) -> timedelta:
    """Return the wait after try `number` (from 1) as it is declared, before it is spread."""
    if backoff.type == "Schedule":
        return min(backoff.schedule[min(number, len(backoff.schedule)) - 1], LONGEST)
    try:
        grown = backoff.initial.total_seconds() * backoff.factor ** (number - 1)
    except OverflowError:
        return min(backoff.max, LONGEST)
    return min(timedelta(seconds=min(grown, LONGEST.total_seconds())), backoff.max)


def spread(backoff: Backoff, number: int) -> tuple[timedelta, timedelta]:
    """Return the shortest and the longest wait after try `number` that the jitter allows."""
    wait = declared(backoff, number)
    return min(wait * (1 - backoff.jitter), LONGEST), min(wait * (1 + backoff.jitter), LONGEST)


def recovery(row: CircuitRow, breaker: CircuitBreaker, now: datetime) -> RateLimit | None:
    """Return how fast may be sent since the circuit has closed; None: as fast as the destination's own limits let."""
    if row.recovering_since is None:
        return None
    rates = [] if breaker.drain is None else [breaker.drain]
    passed = max(timedelta(0), now - row.recovering_since)  # another process may have a clock that is ahead
    if passed < breaker.recovery:
        rates.append(breaker.probes * 2.0 ** int(passed / breaker.recovery * STEPS))
    if not rates:
        return None
    return RateLimit(requests_per_second=min(rates), burst=breaker.probes)


def next_step(row: CircuitRow, breaker: CircuitBreaker, now: datetime) -> datetime | None:
    """Return when `recovery` will say something else by time alone."""
    if row.recovering_since is None:
        return None
    steps = (row.recovering_since + breaker.recovery * step / STEPS for step in range(1, STEPS + 1))
    return next((step for step in steps if step > now), None)


def disabled_from(row: CircuitRow, breaker: CircuitBreaker) -> datetime | None:
    """Return from when on a failure disables a destination that was warned of; None while none does.

    However late the warning was, whoever got it has as long as was declared.
    """
    if row.warned_at is None or breaker.disable_after is None:
        return None
    return row.warned_at + breaker.disable_after * (1 - breaker.warn_at)

"""What a RetryPolicy declares: which reasons are retried, and the waits between tries.

Deliverers decide by this, and the console tells why a delivery ended and when next ones are due, by the same rules.
"""

from datetime import timedelta
from typing import Final

from kapsel_store.rows import Backoff, Policy

LONGEST: Final = timedelta(days=3650)  # waits beyond this are cut, so that no arithmetic overflows
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

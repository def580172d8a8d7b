"""What becomes of a delivery after a try: a pure function of its RetryPolicy, the outcome, the clock and the dice.

The worker asks once for each try and records the answer. Attempts and age are both bounded, so every delivery ends.
What cannot work because of a configuration (a denied address, no signing key) is retried too: somebody may repair it
before the delivery's time is up. So is a success without the signature that is required: which statuses are retried
says nothing of it, and the destination can tell by webhook-id that it has the event already.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

from kapsel_deliverer.outcome import Delivered, Outcome, Refused
from kapsel_store import schedule
from kapsel_store.rows import Backoff, Policy
from kapsel_store.schedule import LONGEST, declared
from kapsel_store.states import State

GONE: Final = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where the try leaves its delivery, and whether it stops the destination."""

    state: State
    retry_in: timedelta | None = None  # for pending
    disable: bool = False


_DELIVERED: Final = Decision(state=State.DELIVERED)


def decide(
    policy: Policy,
    number: int,
    deadline: datetime,
    outcome: Outcome,
    *,
    now: datetime,
    rng: Random,
    together: bool = False,
) -> Decision:
    """Return what follows try `number` (from 1) of a delivery that must end by `deadline`.

    What is refused `together` with others may be refused because of one of them: it is tried again in any case.
    """
    if isinstance(outcome, Delivered):
        return _DELIVERED
    gone = isinstance(outcome, Refused) and outcome.status == GONE
    is_final = not is_retried(policy, outcome) and not (together and isinstance(outcome, Refused))
    if gone or number >= policy.max_attempts or is_final:
        return Decision(state=State.EXHAUSTED, disable=gone)
    wait = backoff(policy.backoff, number, rng)
    if isinstance(outcome, Refused) and outcome.retry_after is not None and policy.honour_retry_after:
        wait = max(wait, min(outcome.retry_after, policy.retry_after_max))
    if now + wait >= deadline:
        return Decision(state=State.EXHAUSTED)
    return Decision(state=State.PENDING, retry_in=wait)


def is_retried(policy: Policy, outcome: Outcome) -> bool:
    """Whether the policy wants another try after this outcome."""
    if isinstance(outcome, Refused) and outcome.token_replaced:
        return True
    return not isinstance(outcome, Delivered) and schedule.is_retried(policy, outcome.reason)


def backoff(backoff: Backoff, number: int, rng: Random) -> timedelta:
    """Return the wait after try `number`: the declared one, spread by the declared jitter."""
    spread = rng.uniform(1 - backoff.jitter, 1 + backoff.jitter)
    return min(declared(backoff, number) * spread, LONGEST)


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header, seconds or HTTP-date; None if there is none or it says neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Thousands of digits are still a number, and int() refuses to read them.
        return min(timedelta(seconds=int(value[:12])), LONGEST) if value[:12].strip("0") else timedelta(0)
    if not value.endswith("GMT") and len(value) != len("Sun Nov  6 08:49:37 1994"):
        return None
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # The asctime form and "-0000" carry no zone; HTTP says that they mean UTC.
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(at - now, timedelta(0))

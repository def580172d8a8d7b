"""The circuit of a destination: pure transitions closed -> open -> half-open -> closed over the shared row.

`breakers` calls these inside `circuits.change`, where the row is locked and `now` is the database's, so all deliverers
see one circuit. A half-open circuit hands out a bounded number of probes, and only their results decide it. When it has
closed, `recovery` bounds the rate for a while. Who only fails for long is warned of, and then disabled, in any state.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kapsel_deliverer.outcome import Delivered, ItemFailed, Outcome, Refused, TimedOut, Unacknowledged, Unreachable
from kapsel_store.circuits import CircuitRow
from kapsel_store.rows import CircuitBreaker
from kapsel_store.schedule import disabled_from

GONE_REASON: Final = "gone"  # the destination answered 410
FAILING_REASON: Final = "failing"  # nothing but failures for as long as its policy bears


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Results of tries at one destination that the shared row does not know yet."""

    successes: int = 0
    failures: int = 0
    probe_successes: int = 0
    probe_failures: int = 0


def counts_as_failure(outcome: Outcome) -> bool | None:
    """Whether the outcome speaks against the destination; None if it says nothing of it.

    Any answer but 2xx counts, also those that are not retried: a destination that answers 401 to everything, or that
    does not sign what it must, would otherwise use up every delivery, where an open circuit keeps them.
    """
    match outcome:
        case Delivered():
            return False
        case Refused() | ItemFailed() | Unacknowledged() | Unreachable() | TimedOut():
            return True
        case _:
            return None


def observe(row: CircuitRow, breaker: CircuitBreaker, observed: Observed, now: datetime) -> CircuitRow:
    """Return the circuit after these results."""
    return _judge(_observe(row, breaker, observed, now), breaker, observed, now)


def recovered(row: CircuitRow, breaker: CircuitBreaker, now: datetime, *, drained: bool) -> CircuitRow:
    """Return the circuit when its recovery is over: its time, and with a drain also what waited, is through."""
    if row.recovering_since is None or now - row.recovering_since < breaker.recovery:
        return row
    return replace(row, recovering_since=None) if drained or breaker.drain is None else row


def _judge(row: CircuitRow, breaker: CircuitBreaker, observed: Observed, now: datetime) -> CircuitRow:
    """Note since when there were failures alone; warn of it, and disable at last. Only a failure does either."""
    if observed.successes or observed.probe_successes:
        return replace(row, failing_since=None, warned_at=None)
    if not (observed.failures or observed.probe_failures):
        return row
    since = row.failing_since or now
    row = replace(row, failing_since=since)
    if breaker.disable_after is None:
        return row
    if row.warned_at is None:
        return replace(row, warned_at=now) if now - since >= breaker.disable_after * breaker.warn_at else row
    end = disabled_from(row, breaker)
    if end is not None and now >= end:
        return disable(row, now, FAILING_REASON)
    return row


def _observe(row: CircuitRow, breaker: CircuitBreaker, observed: Observed, now: datetime) -> CircuitRow:
    match row.state:
        case "closed":
            return _observe_closed(row, breaker, observed, now)
        case "half_open":
            return _observe_probes(row, breaker, observed, now)
        case _:
            # Tries that were under way when the circuit opened: it waits for its time all the same.
            return row


def take_probes(row: CircuitRow, breaker: CircuitBreaker, now: datetime) -> tuple[CircuitRow, int]:
    """Return the circuit and how many probes the caller may send: all that are left, if it was open long enough.

    Probes that stay unanswered as long as a circuit stays open are given up, because who took them may have died.
    """
    if row.state == "closed" or row.disabled_at or row.open_until is None:
        return row, 0
    if now >= row.open_until:
        return (
            replace(row, state="half_open", open_until=now + breaker.open_for, probes_left=0, probe_successes=0),
            breaker.probes,
        )
    return replace(row, probes_left=0), row.probes_left


def disable(row: CircuitRow, now: datetime, reason: str) -> CircuitRow:
    """Return the circuit of a destination that asked for no more; a changed manifest enables it again."""
    return row if row.disabled_at else replace(row, disabled_at=now, disabled_reason=reason)


def _observe_closed(row: CircuitRow, breaker: CircuitBreaker, observed: Observed, now: datetime) -> CircuitRow:
    failures = observed.failures + observed.probe_failures
    attempts = observed.successes + observed.probe_successes + failures
    if now - row.window_started_at >= breaker.window:
        row = replace(row, window_started_at=now, attempts=attempts, failures=failures)
    else:
        row = replace(row, attempts=row.attempts + attempts, failures=row.failures + failures)
    # Who has just come back is let down by as few tries as brought it back.
    enough = breaker.min_attempts if row.recovering_since is None else min(breaker.min_attempts, breaker.probes)
    if row.attempts >= enough and row.failures >= breaker.failure_ratio * row.attempts:
        return _opened(row, breaker, now)
    return row


def _observe_probes(row: CircuitRow, breaker: CircuitBreaker, observed: Observed, now: datetime) -> CircuitRow:
    if observed.probe_failures:
        return _opened(row, breaker, now)
    successes = row.probe_successes + observed.probe_successes
    if successes < breaker.probes:
        return replace(row, probe_successes=successes)
    return replace(
        row,
        state="closed",
        open_until=None,
        recovering_since=now if breaker.recovery or breaker.drain is not None else None,
        window_started_at=now,
        attempts=0,
        failures=0,
        probes_left=0,
        probe_successes=0,
    )


def _opened(row: CircuitRow, breaker: CircuitBreaker, now: datetime) -> CircuitRow:
    return replace(
        row,
        state="open",
        open_until=now + breaker.open_for,
        recovering_since=None,
        attempts=0,
        failures=0,
        probes_left=0,
        probe_successes=0,
    )

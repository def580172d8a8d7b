"""The circuit of a destination: pure transitions closed -> open -> half-open -> closed over the shared row.

`breakers` calls these inside `circuits.change`, where the row is locked and `now` is the database's, so all deliverers
see one circuit. A half-open circuit hands out a bounded number of probes, and only their results decide it.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from kapsel_deliverer.outcome import Delivered, Outcome, Refused, TimedOut, Unacknowledged, Unreachable
from kapsel_store.circuits import CircuitRow
from kapsel_store.rows import CircuitBreaker


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
        case Refused() | Unacknowledged() | Unreachable() | TimedOut():
            return True
        case _:
            return None


def observe(row: CircuitRow, breaker: CircuitBreaker, observed: Observed, now: datetime) -> CircuitRow:
    """Return the circuit after these results."""
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
    if row.attempts >= breaker.min_attempts and row.failures >= breaker.failure_ratio * row.attempts:
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
        window_started_at=now,
        attempts=0,
        failures=0,
        probes_left=0,
        probe_successes=0,
    )


def _opened(row: CircuitRow, breaker: CircuitBreaker, now: datetime) -> CircuitRow:
    return replace(
        row, state="open", open_until=now + breaker.open_for, attempts=0, failures=0, probes_left=0, probe_successes=0
    )

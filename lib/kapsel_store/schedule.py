"""The waits between tries as a RetryPolicy declares them.

Deliverers draw the wait after a try from here, and the console tells when the next ones are due, by the same formula.
"""

from datetime import timedelta
from typing import Final

from kapsel_store.rows import Backoff

LONGEST: Final = timedelta(days=3650)  # waits beyond this are cut, so that no arithmetic overflows


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

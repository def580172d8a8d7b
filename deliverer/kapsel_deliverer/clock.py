"""What time it is for the worker: the database's clock, and when its own retries are due.

Ages and circuits are times of the database, estimated between samples by the monotonic clock: this machine's own clock
may jump, and must not end deliveries early.
"""

import heapq
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Final

DUE_STEP: Final = 0.005  # seconds: retries that are due so close together are one reason to look


class DatabaseClock:
    """Tells the database's time without asking it each time."""

    def __init__(self) -> None:
        self._sampled: datetime | None = None
        self._at = 0.0

    def sample(self, now: datetime) -> None:
        """Take what the database has just said."""
        self._sampled, self._at = now, time.monotonic()

    def now(self) -> datetime:
        """Return the database's time; this machine's, before the database was ever reached."""
        if self._sampled is None:
            return datetime.now(UTC)
        return self._sampled + timedelta(seconds=time.monotonic() - self._at)


class DueTimes:
    """When deliveries will be due, by the monotonic clock: each time once, however many deliveries share it."""

    def __init__(self) -> None:
        self._steps: list[int] = []  # a heap
        self._known: set[int] = set()

    @property
    def first(self) -> float:
        """Return the earliest time, infinity if there is none."""
        return self._steps[0] * DUE_STEP if self._steps else math.inf

    def add(self, at: float) -> None:
        """Remember a time, rounded up to a step."""
        step = math.ceil(at / DUE_STEP)
        if step not in self._known:
            self._known.add(step)
            heapq.heappush(self._steps, step)

    def drop_until(self, now: float) -> None:
        """Forget the times that have come."""
        while self.first <= now:
            self._known.remove(heapq.heappop(self._steps))

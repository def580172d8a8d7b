"""The database's clock, estimated between samples by the monotonic one.

Ages and circuits are times of the database. This machine's clock may jump, and must not end deliveries early.
"""

import time
from datetime import UTC, datetime, timedelta


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

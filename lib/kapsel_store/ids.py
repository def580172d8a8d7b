"""Identifiers: UUID version 7 (RFC 9562 5.7), so that ids sort by time and their ranges are partitions."""

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from asyncpg.pgproto import pgproto

from kapsel_runtime.entropy import take

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANDOM_BITS = 74
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1


class Generator:
    """Makes ids that strictly increase within this generator, also when the clock stands still or goes back.

    RFC 9562 6.2, method 2: within one millisecond the 74 random bits count up by a random step; when the clock goes
    back, the last millisecond seen is kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._random = 0

    def new(self, now_ms: int | None = None) -> UUID:
        """Return the next id for `now_ms` milliseconds since the epoch (default: the clock)."""
        now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        with self._lock:
            entropy = int.from_bytes(take(10))
            if now_ms > self._millisecond:
                self._millisecond = now_ms
                self._random = entropy & (_RANDOM_MASK >> 1)  # the top bit is left free for counting up
            else:
                self._random += 1 + (entropy & 0xFFFFFFFF)
                if self._random > _RANDOM_MASK:
                    self._millisecond += 1
                    self._random = entropy & (_RANDOM_MASK >> 1)
            return _compose(self._millisecond, self._random)


def _compose(millisecond: int, random: int) -> UUID:
    high, low = random >> 62, random & ((1 << 62) - 1)
    composed = (millisecond & ((1 << 48) - 1)) << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    return pgproto.UUID(composed.to_bytes(16))  # a uuid.UUID that is ten times quicker to make


new = Generator().new


def first_at(moment: datetime) -> UUID:
    """Return the smallest id of that millisecond: the bound of a range by time."""
    return _compose(milliseconds(moment), 0)


def timestamp(identifier: UUID) -> datetime:
    """Return when a version 7 id was made, to the millisecond, in UTC."""
    return _EPOCH + timedelta(milliseconds=identifier.int >> 80)


def milliseconds(moment: datetime) -> int:
    """Return whole milliseconds since the epoch of an aware time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)

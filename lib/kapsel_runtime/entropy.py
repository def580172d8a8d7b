"""Random bytes from the system, taken in bulk: ids, salts and correlation ids are made thousands of times a second, and
a system call for each costs more than the rest of making them.

The bytes come from os.urandom and each is handed out once. After a fork the child would repeat its parent's; no process
of ours forks after its start.
"""

import os
import threading
from typing import Final

POOL: Final = 16_384  # bytes asked for at a time


class Entropy:
    """Hands out random bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool = b""
        self._used = 0

    def take(self, count: int) -> bytes:
        """Return `count` random bytes, at most POOL of them."""
        with self._lock:
            if self._used + count > len(self._pool):
                self._pool, self._used = os.urandom(POOL), 0
            self._used += count
            return self._pool[self._used - count : self._used]


take = Entropy().take

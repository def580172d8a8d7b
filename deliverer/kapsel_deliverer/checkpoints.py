"""Knows the newest published head of the log, so that each delivery carries it and destinations can compare."""

import asyncio
from typing import Final

from kapsel_deliverer.signing import checkpoint_header
from kapsel_runtime.waiting import until
from kapsel_store import database, tlog

INTERVAL: Final = 1.0  # seconds between looks; heads are published at most so often


class Checkpoints:
    """Follows the published head."""

    def __init__(self, pool: database.Pool) -> None:
        self._pool = pool
        self._timestamp_ms = 0
        self.header: str | None = None  # the value of kapsel-checkpoint; None before the first head

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for a newer head every second until `stopping`."""
        while not stopping.is_set():
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    head = await tlog.latest_head(connection)
            except Exception as error:
                if not database.is_away(error):
                    raise
                head = None
            if head is not None and head.timestamp_ms != self._timestamp_ms:
                self._timestamp_ms = head.timestamp_ms
                self.header = checkpoint_header(head.checkpoint)
            await until(stopping, timeout=INTERVAL)

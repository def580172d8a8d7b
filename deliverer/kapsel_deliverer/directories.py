"""Keeps the keys that destinations publish, so that a signature is judged without asking for them each time.

The sender asks for the keys of one destination and brings the way to fetch them, which is the way of deliveries: the
same resolver, the same refusals. Whoever waits here is a try at the destination whose keys these are: a directory that
hangs keeps nobody else waiting, and after one failure it is not asked again for a while.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from kapsel_deliverer.acknowledging import Directory
from kapsel_verifier import jwks
from kapsel_verifier.errors import MalformedKeyError
from kapsel_verifier.jwks import Key

FRESH: Final = 600.0  # seconds that keys are used before they are fetched again
STALE: Final = 3600.0  # seconds that they are used if they cannot be
PAUSE: Final = 30.0  # seconds between two fetches of one directory, whatever signatures name and however it fails
FETCH_TIMEOUT: Final = 5.0  # seconds

Fetch = Callable[[Directory], Awaitable[bytes | str]]  # the body of the directory, or why there is none

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kept:
    """What is known of one directory; times are monotonic."""

    keys: tuple[Key, ...] = ()
    problem: str = "it was never fetched"
    fetched_at: float = float("-inf")  # of the keys
    asked_at: float = float("-inf")  # of the last fetch, whatever came of it
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one fetch at a time, the others wait for its answer


class Directories:
    """The keys of all destinations that publish theirs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def keep(self, urls: Collection[str]) -> None:
        """Forget all directories but these: no more are kept than the configuration names."""
        self._kept = {url: self._kept.get(url) or _Kept() for url in urls}

    async def keys(self, directory: Directory, fetch: Fetch, *, anew: bool = False) -> tuple[Key, ...] | str:
        """Return the keys of a directory, or why there are none; `anew` if a signature names one that is not there."""
        kept = self._kept.setdefault(directory.url, _Kept())
        if self._is_due(kept, anew=anew):
            async with kept.lock:
                if self._is_due(kept, anew=anew):  # else whoever had the lock has asked
                    await self._ask(kept, directory, fetch)
        return kept.keys if kept.keys and self._clock() - kept.fetched_at < STALE else kept.problem

    def _is_due(self, kept: _Kept, *, anew: bool) -> bool:
        now = self._clock()
        return now - kept.asked_at >= PAUSE and (anew or now - kept.fetched_at >= FRESH)

    async def _ask(self, kept: _Kept, directory: Directory, fetch: Fetch) -> None:
        body = await fetch(directory)
        kept.asked_at = self._clock()
        try:
            found = body if isinstance(body, str) else jwks.parse(body)
        except MalformedKeyError as error:
            found = str(error)
        if isinstance(found, str):
            kept.problem = found
            logger.info("no keys from %s: %s", directory.url, found)
        else:
            kept.keys, kept.fetched_at = found, self._clock()

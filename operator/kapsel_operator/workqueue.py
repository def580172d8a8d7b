"""The work queue: keys that are due, one key at one worker at a time.

Watches add keys, workers take them. A key that is added while it is worked on is due again when that is done; many
additions within the debounce are one. What a key means, and what working on it does, is left to `reconcile`.
"""

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from kapsel_operator.metrics import Metrics
from kapsel_runtime.backoff import delays
from kapsel_runtime.waiting import until

DEBOUNCE: Final = 0.2  # seconds: changes that come together are one
LONGEST_SLEEP: Final = 60.0  # seconds without looking at the schedule
FIRST_WAIT: Final = 1.0  # seconds: for who waits longer each time


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What to reconcile."""

    kind: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """How a reconcile ended: when the key is due again, if nothing changes before."""

    after: float  # seconds
    patient: bool = False  # wait longer each time, up to `after`, while it ends like this


@dataclass(slots=True)
class _Entry:
    due: float | None = None  # None: it does not wait
    running: bool = False
    last: Again | None = None  # how it ended
    waits: Iterator[float] | None = None  # while it ends patiently in one and the same way


class Schedule:
    """Which key is due when. It knows no clock and does no IO: every method is told what time it is."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._entries: dict[Key, _Entry] = {}
        self._heap: list[tuple[float, Key]] = []

    def add(self, key: Key, due: float) -> None:
        """Have a key worked on at `due`, or before if it is due before."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.due is None or due < entry.due:
            entry.due = due
            heapq.heappush(self._heap, (due, key))

    def take(self, now: float) -> Key | None:
        """Return a key that is due and not worked on, and count it as worked on; None if there is none."""
        blocked: list[tuple[float, Key]] = []
        found = None
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            entry = self._entries.get(key)
            if entry is None or entry.due != due:
                continue  # it was moved ahead, or forgotten
            if entry.running:
                blocked.append((due, key))
                continue
            entry.due, entry.running = None, True
            found = key
            break
        for item in blocked:
            heapq.heappush(self._heap, item)
        return found

    def done(self, key: Key, again: Again | None, now: float) -> None:
        """Say that a key was worked on, and when it is due again if nothing else adds it; None: never."""
        entry = self._entries[key]
        entry.running = False
        if again != entry.last:
            entry.waits = delays(FIRST_WAIT, again.after, self._rng) if again and again.patient else None
        entry.last = again
        if again is not None:
            self.add(key, now + (next(entry.waits) if entry.waits else again.after))
        elif entry.due is None:
            del self._entries[key]

    def next_due(self) -> float | None:
        """Return when the next key that nobody works on is due."""
        free = [entry.due for entry in self._entries.values() if entry.due is not None and not entry.running]
        return min(free, default=None)

    def waiting(self, now: float) -> list[float]:
        """Return for how long each key that waits for a worker has been due."""
        return [now - entry.due for entry in self._entries.values() if entry.due is not None and entry.due <= now]


Work = Callable[[Key], Awaitable[Again | None]]


class WorkQueue:
    """A schedule on the clock of the loop, with workers. Work that fails says so by when it is due again."""

    def __init__(self, metrics: Metrics) -> None:
        self._schedule = Schedule(random.Random())  # noqa: S311 - jitter, not a secret
        self._metrics = metrics
        self._changed = asyncio.Event()

    def add(self, key: Key, after: float = DEBOUNCE) -> None:
        """Have a key worked on in `after` seconds, or before."""
        self._schedule.add(key, self._now() + after)
        self._changed.set()

    async def run(self, workers: int, work: Work, stopping: asyncio.Event) -> None:
        """Work until `stopping`; what is under way then is finished."""
        async with asyncio.TaskGroup() as tasks:
            measuring = tasks.create_task(self._measure())
            running = [tasks.create_task(self._worker(work, stopping)) for _ in range(workers)]
            await asyncio.wait(running)
            measuring.cancel()

    async def _worker(self, work: Work, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            key = self._schedule.take(self._now())
            if key is None:
                await self._wait(stopping)
                continue
            self._schedule.done(key, await work(key), self._now())
            self._changed.set()  # the key may be due again already, and another worker may sleep

    async def _wait(self, stopping: asyncio.Event) -> None:
        self._changed.clear()
        due = self._schedule.next_due()
        timeout = LONGEST_SLEEP if due is None else max(due - self._now(), 0.0)
        await until(self._changed, stopping, timeout=timeout)

    async def _measure(self) -> None:
        while True:
            waiting = self._schedule.waiting(self._now())
            self._metrics.queue_depth.set(len(waiting))
            self._metrics.queue_age.set(max(waiting, default=0.0))
            await asyncio.sleep(1.0)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

"""One destination as a deliverer sees it: its limits, what is leased and waits, and what is under way.

`lanes` keeps one for each destination and asks it what to claim, whether something may start, and what to ask of the
limits that all deliverers share. What a lane may have beside the others is decided in `places`.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_deliverer.places import Places
from kapsel_store.limits import Demand
from kapsel_store.rows import Claimed, RateLimit

LOOKAHEAD: Final = 0.025  # seconds of work to lease ahead of the tries: about one claim and one record
LOOKAHEAD_FACTOR: Final = 4  # and at most so many times the lane's limit
SLOTS_AT_LEAST: Final = 4  # slots that a lane with little to do asks for, so that a second event finds one
ASK_AGAIN: Final = 1.0  # seconds until a lane that got fewer slots than it could use asks once more
SLOW: Final = 1.0  # seconds of a try from which on it is not quick
PACED_AT_ONCE: Final = 32  # tries that may begin together where they may take long
PACED: Final = 1.5  # times as many as can end, on the average, may begin there, so that what the average misses is had


class Leased(NamedTuple):
    """A claimed delivery on its way through this process."""

    delivery: Claimed
    lease_id: UUID
    start_by: float  # monotonic: after this the lease might end before the try
    probe: bool


class Bucket:
    """What a shared bucket may hold by now, as far as this deliverer knows: how much is worth claiming."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self.limit = limit
        self._rate = limit.requests_per_second
        self._burst = float(limit.burst)
        self._tokens = self._burst
        self._at = now

    def learn(self, tokens: float, now: float) -> None:
        """Take over what the shared bucket holds."""
        self._tokens, self._at = tokens, now

    def available(self, now: float) -> int:
        """Return how many tokens there are."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._tokens)

    def wait(self, now: float, count: int = 1) -> float:
        """Return the seconds until there are so many tokens, or would be if the burst had no limit."""
        return 0.0 if self.available(now) >= count else (count - self._tokens) / self._rate


@dataclass(slots=True, kw_only=True)
class Lane:
    """One destination as this deliverer sees it."""

    limit: int
    places: int  # of the deliverer
    longest: float = SLOW  # seconds that a try may take
    rate_limit: RateLimit | None = None  # what is declared
    recovery: RateLimit | None = None  # what holds besides, since the circuit has closed
    seen: datetime | None = None  # when the newest delivery that was claimed was made
    emptied: bool = False  # the last claim found less than it looked for
    bucket: Bucket | None = None
    slots: int = 0  # how many tries may be under way here, of the limit that all share
    slots_until: float = 0.0
    slots_asked: float = -math.inf
    short: bool = False  # others have slots too, and this lane could use more than it got
    tokens: int = 0  # drawn and not used
    tokens_until: float = 0.0
    removed: bool = False  # gone from the configuration; lives until its last try has ended
    queue: deque[Leased] = field(default_factory=deque)
    under_way: dict[tuple[UUID, UUID], float] = field(default_factory=dict)  # tries, and since when: the oldest first
    probes: int | None = None  # None: the circuit is closed; else how many probes may still be claimed
    together: int = 1  # deliveries that may go in one request
    gathers: float = 0.0  # seconds that they have to come together
    gathers_until: float = 0.0
    fills_until: float = 0.0  # until then nothing is claimed for less than a full request
    paused_until: float = 0.0  # the destination asked for patience
    seconds: float = math.inf  # moving average of how long a try takes; none was made
    size: float = 0.0  # about the largest body of late
    memory: int = 0  # bytes of all bodies that are held
    credit: float = PACED_AT_ONCE  # how many tries may begin that may take long
    credited: float = 0.0

    @property
    def in_flight(self) -> int:
        return len(self.under_way)

    @property
    def held(self) -> int:
        return len(self.under_way) + len(self.queue)

    def limit_rate(self, now: float) -> None:
        """Have a bucket of the lower one of both limits, if there is any."""
        limits = [limit for limit in (self.rate_limit, self.recovery) if limit is not None]
        limit = min(limits, key=lambda limit: limit.requests_per_second, default=None)
        if limit is None:
            self.bucket = None
        elif self.bucket is None or self.bucket.limit != limit:
            self.bucket = Bucket(limit, now)

    @property
    def is_paced(self) -> bool:
        """Whether tries here may take long, as far as is known: until the first one has ended, nothing is."""
        return self.seconds >= SLOW

    def is_quick(self, now: float) -> bool:
        """Whether tries here end soon, and most of those that are under way might still: one may be a straggler."""
        if self.is_paced:
            return False
        overdue = sum(1 for _ in takewhile(lambda since: now - since > SLOW, self.under_way.values()))
        return overdue <= max(1, self.in_flight // 2)

    def _pace(self) -> float:
        """Return how many tries that may take long may begin in a second, spread over the time that they take.

        Where they begin together they also time out together, and all others wait while that is dealt with.
        """
        return PACED * min(self.limit, self.places) / max(SLOW, min(self.seconds, self.longest))

    def _paced(self, room: int, now: float) -> int:
        """Return how much of this room may be used now."""
        self.credit = min(PACED_AT_ONCE, self.credit + max(0.0, now - self.credited) * self._pace())
        self.credited = now
        if not self.is_paced or self.together > 1:  # many that go together are one request
            return room
        return min(room, max(int(self.credit), 0 if self.held else 1))

    def spend(self) -> None:
        """Something was claimed: if it may take long, so much less may begin now."""
        if self.is_paced:
            self.credit = max(0.0, self.credit - 1)

    def bodies(self, memory: Places, *, quick: bool) -> int:
        """Return how many more bodies may be in memory for this lane, if they are as large as those of late."""
        left = memory.before_the_last if quick else memory.for_slow
        if left:
            return max(1, int(left / max(1.0, self.size)))
        return int(memory.may_have(self.memory, quick=quick))

    def part(self, now: float) -> int:
        """Return how much of the limit is worth claiming for: all of it, unless others are known to have some."""
        if not self.short:
            return self.limit
        # Of a destination that was suspended meanwhile slots may be left, and nothing of it is to be claimed.
        return min(self.limit, self.slots if self.slots or now < self.slots_asked + ASK_AGAIN else 1)

    def ahead(self, limit: int) -> int:
        """Return how many to lease beyond what may be under way, so that the next tries need not wait for a claim.

        What can go together is claimed together, not a few ahead.
        """
        if self.together > 1:
            return 0
        return min(limit * LOOKAHEAD_FACTOR, int(limit * LOOKAHEAD / max(self.seconds, 0.001)))

    def room(self, now: float) -> int:
        """Return how many deliveries may be claimed now."""
        limit = self.part(now)
        if self.probes is not None:
            return max(0, min(self.probes, limit - self.held))
        return self._paced(self._wishes(limit, now), now)

    def _wishes(self, limit: int, now: float) -> int:
        if now < max(self.paused_until, self.gathers_until) or limit == 0 or not self._fits_a_request(limit, now):
            return 0
        if self.bucket is not None:
            return max(0, min(limit - self.held, self.bucket.available(now) - len(self.queue)))
        room = limit + self.ahead(limit) - self.held
        # While there is work at hand, a few more are not worth a claim.
        return 0 if self.queue and room < limit // 2 else max(0, room)

    def _fits_a_request(self, limit: int, now: float) -> bool:
        """Whether there is room for a full request: what would go with fewer waits for that, and not for long."""
        return self.together == 1 or now >= self.fills_until or limit - self.held >= self._full(limit)

    def _full(self, limit: int) -> int:
        """Return how many a request has at most."""
        return min(self.together, limit, limit if self.bucket is None else self.bucket.limit.burst)

    def gather(self, now: float) -> None:
        """Some were claimed where they go together: let others come that can go so, if there were no more."""
        self.fills_until = now + self.gathers
        if self.emptied:
            self.gathers_until = now + self.gathers
        elif self.bucket is not None:
            # Tokens come one by one, and are no reason to send so.
            tokens = self._full(self.part(now)) + len(self.queue)
            self.gathers_until = now + min(self.gathers, self.bucket.wait(now, tokens))

    def wait(self, now: float) -> float:
        """Return the seconds after which time alone makes room; infinity if it does not."""
        if not self.limit or self.probes is not None or (self.bucket is not None and self.queue):
            return math.inf
        if self.held >= (limit := self.part(now)):
            return math.inf if self.slots or self.held else max(0.0, self.slots_asked + ASK_AGAIN - now)
        paced = 0.0
        if self.is_paced and self.held and self.together == 1:
            paced = max(0.0, (1 - self.credit) / self._pace())
        fills_until = 0.0 if self._fits_a_request(limit, now) else self.fills_until
        quiet = max(self.paused_until, self.gathers_until, fills_until) - now
        return max(quiet, 0.0 if self.bucket is None else self.bucket.wait(now), paced)

    def may_start(self, now: float) -> bool:
        """Whether there is a slot, and a token where one is needed; what goes together waits for the slots of all."""
        if self.in_flight >= self.slots or now >= self.slots_until or (self.together > 1 and self.lacks_slots(now)):
            return False
        return self.bucket is None or (self.tokens > 0 and now < self.tokens_until)

    def lacks_slots(self, now: float) -> bool:
        """Whether what waits here could start with more slots, and there is a point in asking for them now."""
        if now >= self.slots_until:
            return True
        needed = self.in_flight + 1 if self.together == 1 else self.held
        more = self.slots < min(needed, self.limit)
        return more and (not self.short or now >= self.slots_asked + ASK_AGAIN)

    def lacks_tokens(self, now: float) -> bool:
        """Whether what waits here could start with tokens, of which there may be some."""
        if self.bucket is None or self.in_flight >= self.slots or now >= self.slots_until:
            return False
        return (self.tokens == 0 or now >= self.tokens_until) and self.bucket.available(now) >= self.least_tokens

    def until_lacking(self, now: float) -> float:
        """Return the seconds after which time alone lets something start that waits here."""
        if now < self.slots_until and self.in_flight >= self.slots >= self.limit:
            return math.inf
        if self.in_flight >= self.slots or self.lacks_slots(now):
            return max(0.0, self.slots_asked + ASK_AGAIN - now)
        return math.inf if self.bucket is None else self.bucket.wait(now, self.least_tokens)

    @property
    def least_tokens(self) -> int:
        """How many tokens let start what waits: where deliveries go together, those of all that may start."""
        if self.together == 1 or self.bucket is None:
            return 1
        return max(1, min(len(self.queue), self.slots - self.in_flight, self.bucket.limit.burst))

    def demand(self, now: float, *, plenty: bool, free: int) -> Demand:
        """Return what to ask for, and use no more than that until the answer is there, whatever it is."""
        # All of it where there is plenty to do; else some more than is needed, and others find the rest free.
        much = plenty or self.held * 2 >= self.limit
        wanted = self.limit if much else min(self.limit, max(SLOTS_AT_LEAST, self.held * 2))
        wanted = min(wanted, self.held + free)
        self.slots = min(self.slots if now < self.slots_until else 0, max(wanted, self.in_flight))
        return Demand(limit=self.limit, wanted=wanted, held=max(self.slots, self.in_flight))

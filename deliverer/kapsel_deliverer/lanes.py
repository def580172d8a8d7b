"""Who may have how many deliveries: one lane for each destination, its limits, and what is leased and waits in it.

Pure bookkeeping for the worker: it asks what to claim, puts what was claimed here, and takes out what may start. A
destination's limits are kept by all deliverers together: a try starts only with a slot, and with a token where there is
a rate, and `shares` gets both for what was claimed. No lane can take the room of another: half of what is free goes to
lanes that are known to have more, half to those that have not been asked since the last hint, evenly; and the last
quarter of all places is for lanes whose tries end soon, so that destinations that hang cannot have them all.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_store.limits import Allotted, Demand, Draw, Drawn
from kapsel_store.rows import Claimed, DestinationRow, RateLimit

ASKED_AT_ONCE: Final = 256  # lanes in one claim: with more, the claim itself would be slow
LOOKAHEAD: Final = 0.025  # seconds of work to lease ahead of the tries: about one claim and one record
LOOKAHEAD_FACTOR: Final = 4  # and at most so many times the lane's limit
SLOTS_AT_LEAST: Final = 4  # slots that a lane with little to do asks for, so that a second event finds one
ASK_AGAIN: Final = 1.0  # seconds until a lane that got fewer slots than it could use asks once more
TOKEN_SPAN: Final = 1.0  # seconds that a token is good for, so that a stall makes no burst
SLOW: Final = 1.0  # seconds of a try, on the average, from which on a lane may not have the last places
RESERVED: Final = 0.25  # of all places: the last ones, for lanes whose tries end soon
HELD_BYTES: Final = 32 * 1024 * 1024  # bodies in memory at once


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

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token."""
        return 0.0 if self.available(now) else (1 - self._tokens) / self._rate


@dataclass(slots=True, kw_only=True)
class Lane:
    """One destination as this deliverer sees it."""

    limit: int
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
    in_flight: int = 0
    probes: int | None = None  # None: the circuit is closed; else how many probes may still be claimed
    paused_until: float = 0.0  # the destination asked for patience
    seconds: float = math.inf  # moving average of how long a try takes; none was made
    size: float = 0.0  # about the largest body of late

    @property
    def held(self) -> int:
        return self.in_flight + len(self.queue)

    def limit_rate(self, now: float) -> None:
        """Have a bucket of the lower one of both limits, if there is any."""
        limits = [limit for limit in (self.rate_limit, self.recovery) if limit is not None]
        limit = min(limits, key=lambda limit: limit.requests_per_second, default=None)
        if limit is None:
            self.bucket = None
        elif self.bucket is None or self.bucket.limit != limit:
            self.bucket = Bucket(limit, now)

    @property
    def is_quick(self) -> bool:
        """Whether tries here end soon, as far as is known: not before the first one has."""
        return self.seconds < SLOW

    def part(self, now: float) -> int:
        """Return how much of the limit is worth claiming for: all of it, unless others are known to have some."""
        if not self.short:
            return self.limit
        return self.slots if self.slots or now < self.slots_asked + ASK_AGAIN else min(1, self.limit)

    def ahead(self, limit: int) -> int:
        """Return how many to lease beyond what may be under way, so that the next tries need not wait for a claim."""
        return min(limit * LOOKAHEAD_FACTOR, int(limit * LOOKAHEAD / max(self.seconds, 0.001)))

    def room(self, now: float) -> int:
        """Return how many deliveries may be claimed now."""
        limit = self.part(now)
        if self.probes is not None:
            return max(0, min(self.probes, limit - self.held))
        if now < self.paused_until or limit == 0:
            return 0
        if self.bucket is not None:
            return max(0, min(limit - self.held, self.bucket.available(now) - len(self.queue)))
        room = limit + self.ahead(limit) - self.held
        # While there is work at hand, a few more are not worth a claim.
        return 0 if self.queue and room < limit // 2 else max(0, room)

    def wait(self, now: float) -> float:
        """Return the seconds after which time alone makes room; infinity if it does not."""
        if not self.limit or self.probes is not None or (self.bucket is not None and self.queue):
            return math.inf
        if self.held >= self.part(now):
            return math.inf if self.slots or self.held else max(0.0, self.slots_asked + ASK_AGAIN - now)
        return max(self.paused_until - now, 0.0 if self.bucket is None else self.bucket.wait(now), 0.0)

    def may_start(self, now: float) -> bool:
        """Whether there is a slot, and a token where one is needed."""
        if self.in_flight >= self.slots or now >= self.slots_until:
            return False
        return self.bucket is None or (self.tokens > 0 and now < self.tokens_until)

    def lacks_slots(self, now: float) -> bool:
        """Whether what waits here could start with more slots, and there is a point in asking for them now."""
        if now >= self.slots_until:
            return True
        more = self.in_flight >= self.slots and self.slots < self.limit
        return more and (not self.short or now >= self.slots_asked + ASK_AGAIN)

    def lacks_tokens(self, now: float) -> bool:
        """Whether what waits here could start with tokens, of which there may be some."""
        if self.bucket is None or self.in_flight >= self.slots or now >= self.slots_until:
            return False
        return (self.tokens == 0 or now >= self.tokens_until) and self.bucket.available(now) > 0

    def until_lacking(self, now: float) -> float:
        """Return the seconds after which time alone lets something start that waits here."""
        if now < self.slots_until and self.in_flight >= self.slots >= self.limit:
            return math.inf
        if self.in_flight >= self.slots or now >= self.slots_until:
            return max(0.0, self.slots_asked + ASK_AGAIN - now)
        return math.inf if self.bucket is None else self.bucket.wait(now)

    def demand(self, now: float, *, plenty: bool, free: int) -> Demand:
        """Return what to ask for, and use no more than that until the answer is there, whatever it is."""
        # All of it where there is plenty to do; else some more than is needed, and others find the rest free.
        much = plenty or self.held * 2 >= self.limit
        wanted = self.limit if much else min(self.limit, max(SLOTS_AT_LEAST, self.held * 2))
        wanted = min(wanted, self.held + free)
        self.slots = min(self.slots if now < self.slots_until else 0, max(wanted, self.in_flight))
        return Demand(limit=self.limit, wanted=wanted, held=max(self.slots, self.in_flight))


class Lanes:
    """All lanes of this deliverer, and how much it holds in total."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._reserve = int(capacity * RESERVED)  # places that only quick lanes get
        self._lanes: dict[UUID, Lane] = {}
        self._order: deque[UUID] = deque()
        self._turn = 0
        self._unasked = 0  # how many of the order were not asked since the last hint
        self._more: dict[UUID, None] = {}  # lanes that may have due deliveries which were not claimed
        self._stuck: dict[UUID, None] = {}  # lanes in which something waits for a slot or a token
        self._held_bytes = 0
        self.held = 0

    def configure(self, destinations: Iterable[DestinationRow], now: float) -> list[Leased]:
        """Take over the limits of a configuration; return what must be released."""
        known = {destination.id: destination for destination in destinations}
        for destination_id, destination in known.items():
            self._configure(destination_id, destination, now)
        stale: list[Leased] = []
        for destination_id, lane in list(self._lanes.items()):
            lane.removed = destination_id not in known
            lane.limit = 0 if lane.removed else lane.limit
            stale += self.empty(destination_id) if lane.limit == 0 else ()
            if lane.removed and lane.in_flight == 0:
                del self._lanes[destination_id]
                self._stuck.pop(destination_id, None)
        self._order = deque(known)
        self._more = {one: None for one in self._more if one in known and self._lanes[one].limit}
        self.look_everywhere()
        return stale

    def _configure(self, destination_id: UUID, destination: DestinationRow, now: float) -> None:
        limit = 0 if destination.suspend else destination.max_in_flight
        lane = self._lanes.setdefault(destination_id, Lane(limit=limit))
        if lane.limit != limit:
            lane.limit, lane.slots_until = limit, 0.0
        lane.rate_limit = destination.rate_limit
        lane.limit_rate(now)

    def look_everywhere(self) -> None:
        """A hint came, or it is time to poll: any lane may have something due."""
        self._unasked = len(self._order)

    @property
    def are_many(self) -> bool:
        """Whether one claim cannot ask all lanes."""
        return len(self._order) > ASKED_AT_ONCE

    def look_at(self, waiting: Iterable[UUID]) -> None:
        """These lanes may have something due, and no others."""
        known = dict.fromkeys(key for key in waiting if key in self._lanes and not self._lanes[key].removed)
        self._unasked = len(known)
        # Another one is first each time, so that all get their turn when there are more than can be asked.
        turn = self._turn % max(1, len(known))
        self._turn += ASKED_AT_ONCE
        listed = list(known)
        self._order = deque([*listed[turn:], *listed[:turn], *(key for key in self._order if key not in known)])

    def may_claim(self, destination_id: UUID) -> bool:
        """Whether anything of a destination may be claimed, now or when there is room again."""
        lane = self._lanes.get(destination_id)
        return lane is not None and not lane.removed and lane.limit > 0 and lane.probes != 0

    def may_have_due(self, destination_ids: Iterable[UUID]) -> None:
        """These lanes have something due, besides what is known."""
        self._more.update(dict.fromkeys(filter(self.may_claim, destination_ids)))

    @property
    def may_have_more(self) -> bool:
        """Whether something may be due that was not claimed for want of room."""
        return bool(self._more) or self._unasked > 0

    def wanted(self, now: float) -> dict[UUID, int]:
        """Return what to claim: how many at most for each destination, in total no more than there is room for."""
        free = self._capacity - self.held
        wanted: dict[UUID, int] = {}
        if free <= 0 or self._held_bytes >= HELD_BYTES:
            return wanted
        for_more = 0 if not self._more else free - free // 2 if self._unasked else free
        self._share_out(list(islice(self._more, min(for_more, ASKED_AT_ONCE))), for_more, wanted, now)
        # Most lanes have nothing due: go on until some with room are found or all were asked.
        while self._unasked and len(wanted) < ASKED_AT_ONCE and (left := free - sum(wanted.values())) > 0:
            self._share_out(self._next_unasked(min(left, ASKED_AT_ONCE)), left, wanted, now)
        return wanted

    def _next_unasked(self, count: int) -> list[UUID]:
        count = min(count, self._unasked)
        self._unasked -= count
        window = list(islice(self._order, count))
        self._order.rotate(-count)
        return window

    def _share_out(self, candidates: Sequence[UUID], free: int, wanted: dict[UUID, int], now: float) -> None:
        """Give each candidate with room an even share; those without stay known, to be asked when they have some."""
        rooms: dict[UUID, int] = {}
        for destination_id in candidates:
            lane = self._lanes[destination_id]
            if destination_id in wanted:
                continue
            if room := lane.room(now):
                rooms[destination_id] = room
            elif lane.limit and lane.probes is None:
                self._more[destination_id] = None
        quick = {one: room for one, room in rooms.items() if self._lanes[one].is_quick}
        free -= self._divide(quick, free, wanted)
        # The others may hang and keep what they get for long: the last places are not for them.
        slow = {one: room for one, room in rooms.items() if one not in quick}
        places = self._capacity - self.held - sum(wanted.values()) - self._reserve
        free -= self._divide(slow, max(0, min(free, places)), wanted)
        places = self._capacity - self.held - sum(wanted.values()) - max(1, self._reserve // 2)
        for destination_id in (one for one in slow if one not in wanted):
            lane = self._lanes[destination_id]
            if min(free, places) > 0 and lane.held == 0 and lane.seconds == math.inf:
                wanted[destination_id] = 1  # nothing is known of it, and one try will tell
                free, places = free - 1, places - 1
            else:
                self._more[destination_id] = None

    def _divide(self, rooms: Mapping[UUID, int], free: int, wanted: dict[UUID, int]) -> int:
        """Give each lane its even share of what is free, and return how much that is."""
        left, memory, before = len(rooms), HELD_BYTES - self._held_bytes, free
        # Who has least room first: what it leaves over goes to the others.
        for destination_id, room in sorted(rooms.items(), key=lambda item: item[1]):
            fitting = max(1, int(memory / max(1.0, self._lanes[destination_id].size)))
            if count := min(room, fitting, free // left):
                wanted[destination_id] = count
            free, left = free - count, left - 1
        return before - free

    def queued(self) -> dict[UUID, UUID]:
        """Return the deliveries that wait in lanes, with their leases."""
        return {leased.delivery.id: leased.lease_id for lane in self._lanes.values() for leased in lane.queue}

    def arrived(
        self,
        wanted: Mapping[UUID, int],
        claimed: Sequence[Claimed],
        lease_id: UUID,
        start_by: float,
        done: Mapping[UUID, int] = MappingProxyType({}),
    ) -> list[Leased]:
        """Queue what a claim brought, and remember which lanes may have more; return what must be released.

        `done` counts what the claim brought besides, and will not be sent.
        """
        found = dict.fromkeys(wanted, 0)
        stale: list[Leased] = []
        for delivery in claimed:
            found[delivery.destination_id] += 1
            lane = self._lanes.get(delivery.destination_id)
            probe = lane is not None and lane.probes is not None
            leased = Leased(delivery=delivery, lease_id=lease_id, start_by=start_by, probe=probe)
            if (
                lane is None or lane.limit == 0 or lane.probes == 0
            ):  # the configuration or the circuit changed meanwhile
                stale.append(leased)
                continue
            if lane.probes is not None:
                lane.probes -= 1
            lane.queue.append(leased)
            lane.seen = delivery.created_at
            lane.size = max(len(delivery.body), lane.size * 0.9)
            self.held += 1
            self._held_bytes += len(delivery.body)
        for destination_id, count in found.items():
            self._asked(destination_id, wanted[destination_id], count, done.get(destination_id, 0))
        return stale

    def _asked(self, destination_id: UUID, wanted: int, found: int, done: int) -> None:
        lane = self._lanes.get(destination_id)
        # Asked again last, after the others that may have more.
        self._more.pop(destination_id, None)
        if lane is None:
            return
        lane.emptied = found + done < wanted
        if found + done >= wanted and lane.probes is None and not lane.removed:
            self._more[destination_id] = None

    def start(self, destination_id: UUID, now: float) -> Leased | None:
        """Take out the next delivery of a lane if it may be tried now."""
        lane = self._lanes.get(destination_id)
        if lane is None or not lane.queue:
            self._stuck.pop(destination_id, None)
            return None
        if not lane.may_start(now):
            self._stuck[destination_id] = None
            return None
        lane.in_flight += 1
        lane.tokens -= lane.bucket is not None
        return lane.queue.popleft()

    def finished(self, leased: Leased, seconds: float | None, now: float, pause: float = 0.0) -> None:
        """A try has ended (`seconds` None: it was not made); the destination may have asked for a pause."""
        destination_id = leased.delivery.destination_id
        lane = self._lanes[destination_id]
        lane.in_flight -= 1
        self._let_go(leased)
        if seconds is None:
            self._untried(lane, leased)
        else:
            lane.seconds = seconds if lane.seconds == math.inf else lane.seconds * 0.9 + seconds * 0.1
        if pause:
            lane.paused_until = max(lane.paused_until, now + pause)
            if not lane.removed:
                self._more[destination_id] = None
        if lane.removed and lane.in_flight == 0:
            del self._lanes[destination_id]
            self._more.pop(destination_id, None)

    def empty(self, destination_id: UUID) -> list[Leased]:
        """Take everything out of a lane's queue, to be released."""
        lane = self._lanes.get(destination_id)
        if lane is None:
            return []
        taken = list(lane.queue)
        lane.queue.clear()
        self._stuck.pop(destination_id, None)
        for leased in taken:
            self._let_go(leased)
        return taken

    def set_circuit(self, destination_id: UUID, probes: int | None) -> list[Leased]:
        """Close a lane's circuit (None), or open it but for `probes`; return what must be released."""
        lane = self._lanes.get(destination_id)
        if lane is None or lane.removed:
            return []
        opened = lane.probes is None and probes is not None
        if probes != lane.probes and probes != 0 and lane.limit:
            self._more[destination_id] = None
        lane.probes = probes
        return self.empty(destination_id) if opened else []

    def demands(self, now: float) -> dict[UUID, Demand]:
        """Return the slots to ask for, for what waits without one."""
        free = max(0, self._capacity - self.held)
        return {
            one: self._lanes[one].demand(now, plenty=one in self._more, free=free)
            for one in self._stuck
            if self._lanes[one].lacks_slots(now)
        }

    def renewals(self, now: float, lease: float) -> dict[UUID, Demand]:
        """Return the slots to ask for again, so as not to lose them; those that nothing needs go back to the others."""
        found: dict[UUID, Demand] = {}
        free = max(0, self._capacity - self.held)
        for destination_id, lane in self._lanes.items():
            if lane.held and now >= lane.slots_asked + (ASK_AGAIN if lane.short else lease / 3):
                found[destination_id] = lane.demand(now, plenty=destination_id in self._more, free=free)
            elif not lane.held and lane.slots > SLOTS_AT_LEAST and now < lane.slots_until:
                lane.slots = 0
                found[destination_id] = Demand(limit=lane.limit, wanted=0)
        return found

    def partings(self) -> dict[UUID, Demand]:
        """Return what gives all slots back that no try needs, for who leaves: others wait for no lease to end."""
        return {
            one: Demand(limit=lane.limit, wanted=0)
            for one, lane in self._lanes.items()
            if lane.slots and not lane.in_flight
        }

    def allotted(self, destination_id: UUID, allotted: Allotted, asked: float, until: float) -> list[Leased]:
        """Use these slots from now on; return what was claimed in vain, because others have the slots."""
        lane = self._lanes.get(destination_id)
        if lane is None:
            return []
        lane.slots, lane.short = allotted.slots, allotted.short
        lane.slots_asked, lane.slots_until = asked, until if allotted.slots or allotted.short else 0.0
        surplus = []
        while lane.short and lane.queue and lane.held > lane.slots + lane.ahead(lane.slots):
            surplus.append(self._take_last(lane))
        return surplus

    def draws(self, now: float) -> dict[UUID, Draw]:
        """Return the tokens to draw for what waits."""
        found: dict[UUID, Draw] = {}
        for destination_id in self._stuck:
            lane = self._lanes[destination_id]
            if lane.bucket is not None and lane.lacks_tokens(now):
                need = min(len(lane.queue), lane.slots - lane.in_flight)
                found[destination_id] = Draw(limit=lane.bucket.limit, need=need)
        return found

    def drawn(self, destination_id: UUID, drawn: Drawn, now: float) -> list[Leased]:
        """Use these tokens; return what would wait too long for one."""
        lane = self._lanes.get(destination_id)
        if lane is None or lane.bucket is None:
            return []
        lane.tokens, lane.tokens_until = drawn.tokens, now + TOKEN_SPAN
        lane.bucket.learn(drawn.left, now)
        surplus = []
        while drawn.wait > TOKEN_SPAN and len(lane.queue) > lane.tokens:
            surplus.append(self._take_last(lane))
        if surplus:
            self._more[destination_id] = None
        return surplus

    def lacks(self, destination_id: UUID, now: float) -> bool:
        """Whether something waits in a lane that could start if slots or tokens were asked for."""
        return destination_id in self._stuck and self._lanes[destination_id].until_lacking(now) < math.inf

    def until_lacking(self, now: float) -> float:
        """Return the seconds after which time alone lets something start that waits."""
        return min((self._lanes[one].until_lacking(now) for one in self._stuck), default=math.inf)

    def _take_last(self, lane: Lane) -> Leased:
        leased = lane.queue.pop()
        self._let_go(leased)
        self._untried(lane, leased)
        return leased

    def _untried(self, lane: Lane, leased: Leased) -> None:
        """A probe that was not sent is sent later: nothing else tells whether the destination is back."""
        if leased.probe and lane.probes is not None and lane.limit:
            lane.probes += 1
            self._more[leased.delivery.destination_id] = None

    def set_recovery(self, destination_id: UUID, rate: RateLimit | None, now: float) -> None:
        """Bound the rate of a lane whose circuit has closed; None: no more."""
        lane = self._lanes.get(destination_id)
        if lane is None or lane.removed or lane.recovery == rate:
            return
        if lane.recovery is None:
            lane.emptied, lane.seen = False, None
        lane.recovery = rate
        lane.limit_rate(now)
        if lane.limit:
            self._more[destination_id] = None

    def is_drained(self, destination_id: UUID, since: datetime) -> bool:
        """Whether nothing waits any more that was there at a time: the oldest are claimed first."""
        lane = self._lanes.get(destination_id)
        return lane is not None and (lane.emptied or (lane.seen is not None and lane.seen > since))

    def probes(self, destination_id: UUID) -> int | None:
        """Return how many probes a lane still holds; None if its circuit is closed."""
        lane = self._lanes.get(destination_id)
        return None if lane is None else lane.probes

    def destinations(self) -> Sequence[UUID]:
        """Return the destinations of the configuration."""
        return tuple(self._order)

    def quiet(self) -> list[UUID]:
        """Return the destinations that have nothing due as far as is known, and may be asked."""
        lanes = self._lanes
        return [key for key in self._order if key not in self._more and lanes[key].limit and lanes[key].probes is None]

    def wait(self, now: float) -> float:
        """Return the seconds after which time alone makes room for a lane that may have more."""
        if self.held >= self._capacity or self._held_bytes >= HELD_BYTES:
            return math.inf
        full = self._capacity - self.held <= self._reserve
        lanes = [self._lanes[known] for known in self._more]
        return min((lane.wait(now) for lane in lanes if lane.is_quick or not full), default=math.inf)

    def _let_go(self, leased: Leased) -> None:
        self.held -= 1
        self._held_bytes -= len(leased.delivery.body)

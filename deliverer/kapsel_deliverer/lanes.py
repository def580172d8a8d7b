"""Who may have how many deliveries: one lane for each destination, its limits, and what is leased and waits in it.

Pure bookkeeping for the worker: it asks what to claim, puts what was claimed here, and takes out what may start. A
destination's limits are kept by all deliverers together: a try starts only with a slot, and with a token where there is
a rate, and `shares` gets both for what was claimed. No lane can take the room of another: half of what is free goes to
lanes that are known to have more, half to those that have not been asked since the last hint, each as `places` shares
out. Bodies in memory are shared by the same rule. And what goes to lanes whose tries may take long goes there a few at
a time, so that nobody waits for hundreds of tries to be made or given up in one moment.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Final
from uuid import UUID

from kapsel_deliverer.lane import ASK_AGAIN, SLOTS_AT_LEAST, Lane, Leased
from kapsel_deliverer.places import Asking, Places, share, slow_part
from kapsel_store.limits import Allotted, Demand, Draw, Drawn
from kapsel_store.rows import Claimed, DestinationRow, RateLimit

ASKED_AT_ONCE: Final = 256  # lanes in one claim: with more, the claim itself would be slow
TOKEN_SPAN: Final = 1.0  # seconds that a token is good for, so that a stall makes no burst
HELD_BYTES: Final = 32 * 1024 * 1024  # bodies in memory at once


@dataclass(slots=True, kw_only=True)
class _Claim:
    """What the next claim is to bring, and what is left then."""

    now: float
    places: Places
    memory: Places  # in bytes
    wanted: dict[UUID, int] = field(default_factory=dict)

    def take(self, destination_id: UUID, lane: Lane, count: int, quick: bool) -> bool:
        """Want so many, or as many as there is memory for; return whether that is any."""
        count = min(count, lane.bodies(self.memory, quick=quick))
        if count:
            self.wanted[destination_id] = count
            self.places = self.places.less(count, quick=quick)
            self.memory = self.memory.less(int(count * lane.size), quick=quick)
        return count > 0

    def fits(self, lane: Lane) -> bool:
        """Whether a lane may have one more."""
        quick = lane.is_quick(self.now)
        return self.places.may_have(lane.held, quick=quick) and lane.bodies(self.memory, quick=quick) > 0


class Lanes:
    """All lanes of this deliverer, and how much it holds in total."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lanes: dict[UUID, Lane] = {}
        self._order: deque[UUID] = deque()
        self._turn = 0
        self._unasked = 0  # how many of the order were not asked since the last hint
        self._more: dict[UUID, None] = {}  # lanes that may have due deliveries which were not claimed
        self._stuck: dict[UUID, None] = {}  # lanes in which something waits for a slot or a token
        self._busy: dict[UUID, Lane] = {}  # lanes that hold something
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
        lane = self._lanes.setdefault(destination_id, Lane(limit=limit, places=self._capacity))
        if lane.limit != limit:
            lane.limit, lane.slots_until = limit, 0.0
        lane.rate_limit = destination.rate_limit
        lane.longest = destination.timeout.total_seconds()
        batch = destination.batch
        together, gathers = (1, 0.0) if batch is None else (batch.max_events, batch.interval.total_seconds())
        if (lane.together, lane.gathers) != (together, gathers):
            lane.together, lane.gathers = together, gathers
            lane.gathers_until = lane.fills_until = 0.0
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
        claim = self._claim(now)
        free = claim.places.free
        if free <= 0:
            return claim.wanted
        for_more = 0 if not self._more else free - free // 2 if self._unasked else free
        self._share_out(claim, list(islice(self._more, ASKED_AT_ONCE)), for_more)
        # Most lanes have nothing due: go on until some with room are found or all were asked.
        while self._unasked and len(claim.wanted) < ASKED_AT_ONCE and claim.places.free:
            self._share_out(claim, self._next_unasked(ASKED_AT_ONCE - len(claim.wanted)), claim.places.free)
        return claim.wanted

    def _next_unasked(self, count: int) -> list[UUID]:
        count = min(count, self._unasked)
        self._unasked -= count
        window = list(islice(self._order, count))
        self._order.rotate(-count)
        return window

    def _share_out(self, claim: _Claim, candidates: Sequence[UUID], most: int) -> None:
        """Give the candidates with room their shares; those without any stay known, and are asked again last."""
        asking: dict[UUID, Asking] = {}
        for destination_id in candidates:
            lane = self._lanes[destination_id]
            if destination_id in claim.wanted:
                continue
            if room := lane.room(claim.now):
                asking[destination_id] = Asking(lane.held, room, lane.is_quick(claim.now))
            elif lane.limit and lane.probes is None:
                self._know(destination_id)
        shares = share(claim.places, asking, most) if asking else {}
        for destination_id, each in asking.items():
            if not claim.take(destination_id, self._lanes[destination_id], shares.get(destination_id, 0), each.quick):
                self._know(destination_id)

    def _know(self, destination_id: UUID) -> None:
        """A lane may have more than there is room for: it is asked again, after the others."""
        self._more.pop(destination_id, None)
        self._more[destination_id] = None

    def _claim(self, now: float) -> _Claim:
        """Return a claim that brings nothing yet, with who has the places and the memory now."""
        slow = [lane for lane in self._busy.values() if not lane.is_quick(now)]
        memory, slow_memory = (sum(lane.memory for lane in lanes) for lanes in (self._busy.values(), slow))
        # Bodies may be larger than was expected: what slow lanes have too much of is not taken from the others.
        heaped = sum(lane.memory for lane in slow if lane.held > 1)
        memory -= max(0, heaped - slow_part(HELD_BYTES))
        return _Claim(
            now=now,
            places=Places(total=self._capacity, taken=self.held, slow=sum(lane.held for lane in slow)),
            memory=Places(total=HELD_BYTES, taken=min(HELD_BYTES, memory), slow=slow_memory),
        )

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
            lane.memory += len(delivery.body)
            lane.spend()
            self._busy[delivery.destination_id] = lane
            self.held += 1
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

    def gather(self, destination_id: UUID, now: float) -> None:
        """A claim has brought some: look for more later, where they go together and there were no more."""
        lane = self._lanes.get(destination_id)
        if lane is not None and lane.together > 1:
            lane.gather(now)

    def start(self, destination_id: UUID, now: float) -> Leased | None:
        """Take out the next delivery of a lane if it may be tried now."""
        lane = self._lanes.get(destination_id)
        if lane is None or not lane.queue:
            self._stuck.pop(destination_id, None)
            return None
        if not lane.may_start(now):
            self._stuck[destination_id] = None
            return None
        lane.tokens -= lane.bucket is not None
        leased = lane.queue.popleft()
        lane.under_way[leased.delivery.id, leased.lease_id] = now
        return leased

    def finished(self, leased: Leased, seconds: float | None, now: float, pause: float = 0.0) -> None:
        """A try has ended (`seconds` None: it was not made); the destination may have asked for a pause."""
        destination_id = leased.delivery.destination_id
        lane = self._lanes[destination_id]
        del lane.under_way[leased.delivery.id, leased.lease_id]
        self._let_go(lane, leased)
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
            self._let_go(lane, leased)
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
                found[destination_id] = Draw(limit=lane.bucket.limit, need=need, least=lane.least_tokens)
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
        self._let_go(lane, leased)
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

    def is_paced(self, destination_id: UUID) -> bool:
        """Whether tries of a lane may take long, as far as is known."""
        lane = self._lanes.get(destination_id)
        return lane is None or lane.is_paced

    def destinations(self) -> Sequence[UUID]:
        """Return the destinations of the configuration."""
        return tuple(self._order)

    def quiet(self) -> list[UUID]:
        """Return the destinations that have nothing due as far as is known, and may be asked."""
        lanes = self._lanes
        return [key for key in self._order if key not in self._more and lanes[key].limit and lanes[key].probes is None]

    def wait(self, now: float) -> float:
        """Return the seconds after which time alone makes room for a lane that may have more."""
        claim = self._claim(now)
        lanes = [self._lanes[known] for known in self._more]
        return min((lane.wait(now) for lane in lanes if claim.fits(lane)), default=math.inf)

    def waiting(self, now: float) -> list[UUID]:
        """Return the lanes that have something due for which there is no place, as far as is known."""
        claim = self._claim(now)
        lanes = ((known, self._lanes[known]) for known in self._more)
        return [one for one, lane in lanes if lane.room(now) > 0 and not claim.fits(lane)]

    def _let_go(self, lane: Lane, leased: Leased) -> None:
        self.held -= 1
        lane.memory -= len(leased.delivery.body)
        if not lane.held:
            self._busy.pop(leased.delivery.destination_id, None)

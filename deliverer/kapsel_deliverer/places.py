"""How the places of a deliverer are shared out, so that nobody can keep the others from theirs: a pure decision.

`lanes` asks before each claim. A place is taken from the claim of a delivery to the end of its try, so what waits for
its turn inside this process has one too. Who has least comes first, and the fewer places are left, the less one lane
may have of them:

- lanes that are not quick never have more than three quarters of all places together;
- the last eighth is for lanes that have next to nothing: one place for a lane that has none, and for a quick one up to
  an eighth of what is left;
- the last sixteenth is for quick lanes alone.

A quick lane that begins to hang has taken places before anybody can know it. Even so the next one finds some: more than
a dozen lanes must begin to hang within one second to use up the last eighth.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID


def slow_part(total: int) -> int:
    """Return how many of all places lanes that are not quick may have together."""
    return total - total // 4


class Asking(NamedTuple):
    """A lane that could use more places."""

    held: int  # places that it has
    room: int  # how many more it could use
    quick: bool  # its tries end soon, those under way too


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How many there are, and who has them."""

    total: int
    taken: int
    slow: int  # of those that are taken: by lanes that are not quick

    @property
    def free(self) -> int:
        return self.total - self.taken

    @property
    def before_the_last(self) -> int:
        """How many are left before the last eighth."""
        return max(0, self.free - self.total // 8)

    @property
    def for_slow(self) -> int:
        """How many lanes that are not quick may have, besides the first one of each."""
        return max(0, min(self.before_the_last, slow_part(self.total) - self.slow))

    @property
    def for_first(self) -> int:
        """How many lanes that are not quick may have their first one."""
        last = min(-(-self.total // 16), self.total // 4)  # at least one, if there are some to be shared at all
        return max(0, self.free - last)

    @property
    def for_little(self) -> int:
        """How many one quick lane may have in the last eighth."""
        return max(self.free // 8, min(1, self.free))

    def may_have(self, held: int, *, quick: bool) -> bool:
        """Whether a lane that has so many may have one more."""
        if quick:
            return self.before_the_last > 0 or held < self.for_little
        return self.for_slow > 0 or (held == 0 and self.for_first > 0)

    def less(self, count: int, *, quick: bool) -> "Places":
        """Return what is left when a lane gets so many more."""
        taken = min(self.total, self.taken + count)
        return Places(total=self.total, taken=taken, slow=self.slow + (0 if quick else count))


def share(places: Places, asking: Mapping[UUID, Asking], most: int) -> dict[UUID, int]:
    """Return how many each gets, `most` in all; of those that have as much, who stands first comes first."""
    shared = dict.fromkeys(asking, 0)
    for rule in (_first, _evenly, _little):
        counts = {one: count for one, count in rule(places, asking, min(most, places.free)).items() if count}
        if not counts:
            continue
        quick = sum(count for one, count in counts.items() if asking[one].quick)
        given = sum(counts.values())
        most, places = most - given, places.less(quick, quick=True).less(given - quick, quick=False)
        asking = dict(asking)
        for one, count in counts.items():
            shared[one] += count
            asking[one] = Asking(asking[one].held + count, asking[one].room - count, asking[one].quick)
    return {one: count for one, count in shared.items() if count}


def _first(places: Places, asking: Mapping[UUID, Asking], most: int) -> dict[UUID, int]:
    """Who has nothing gets one."""
    counts: dict[UUID, int] = {}
    for one, each in asking.items():
        if not each.held and each.room and len(counts) < (most if each.quick else min(most, places.for_first)):
            counts[one] = 1
    return counts


def _evenly(places: Places, asking: Mapping[UUID, Asking], most: int) -> dict[UUID, int]:
    """All but the last places go to who has least, those for lanes that are not quick as far as they reach."""
    most = min(most, places.before_the_last)
    if not most:
        return {}
    for_slow = min(most, places.for_slow)
    counts = _level(asking, most)
    others = {one: each for one, each in asking.items() if not each.quick}
    if sum(counts[one] for one in others) <= for_slow:
        return counts
    counts = _level(others, for_slow)
    quick = {one: each for one, each in asking.items() if each.quick}
    return counts | _level(quick, most - sum(counts.values()))


def _little(places: Places, asking: Mapping[UUID, Asking], most: int) -> dict[UUID, int]:
    """Of the last places, and half of them at once, quick lanes get some that have less than the others."""
    if places.before_the_last:
        return {}
    little = {
        one: Asking(each.held, min(each.room, max(0, places.for_little - each.held)), quick=True)
        for one, each in asking.items()
        if each.quick
    }
    return _level(little, min(most, places.free // 2))


def _level(asking: Mapping[UUID, Asking], most: int) -> dict[UUID, int]:
    """Share out so many, to who has least until they have as many as the next."""
    if sum(each.room for each in asking.values()) <= most:
        return {one: each.room for one, each in asking.items()}

    def up_to(level: int) -> int:
        return sum(min(max(level - each.held, 0), each.room) for each in asking.values())

    level = bisect_right(range(max(each.held for each in asking.values()) + most + 1), most, key=up_to) - 1
    counts = {one: min(max(level - each.held, 0), each.room) for one, each in asking.items()}
    rest = most - sum(counts.values())
    for one, each in asking.items():
        if rest and each.held + counts[one] == level and counts[one] < each.room:
            counts[one] += 1
            rest -= 1
    return counts

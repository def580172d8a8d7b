"""Which versions of a generated key there are, from those there were and the time.

The newest version is always one that is not live yet: it is published a whole period before it signs, and an operator
that is down for less than a period delays nothing. One that is made too late for that, since the rotation was declared
or changed only now, is published for an hour. When its time comes, its predecessor stays live for the overlap.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from kapsel_resources.kinds.signing_key import Rotation
from kapsel_store.rows import KeyRow

# A first version is live a little before it is made, so that a process whose clock is behind can use it at once.
BACKDATE: Final = timedelta(minutes=5)
ANNOUNCED: Final = timedelta(hours=1)  # no longer than the shortest period

Make = Callable[[int, datetime], KeyRow]  # version, not_before


def is_live(row: KeyRow, now: datetime) -> bool:
    """Return whether a version signs and verifies now."""
    return row.not_before <= now and (row.not_after is None or now < row.not_after)


def versions(existing: Sequence[KeyRow], rotation: Rotation | None, now: datetime, make: Make) -> tuple[KeyRow, ...]:
    """Return the versions that should exist now; expired ones are gone."""
    alive = sorted(
        (row for row in existing if row.not_after is None or row.not_after > now), key=lambda row: row.version
    )
    if not alive:
        newest = max((row.version for row in existing), default=0)
        alive = [make(newest + 1, now - BACKDATE)]
    if alive[0].not_before > now:  # the clock went back to before the first version: something must be live
        alive[0] = replace(alive[0], not_before=now - BACKDATE)
    live = [row for row in alive if row.not_before <= now]
    if rotation is None:
        return (*live[:-1], replace(live[-1], not_after=None))
    upcoming = [row for row in alive if row.not_before > now][:1]
    return _with_successor(live, upcoming, rotation, now, make)


def _with_successor(
    live: list[KeyRow], upcoming: list[KeyRow], rotation: Rotation, now: datetime, make: Make
) -> tuple[KeyRow, ...]:
    current = live[-1]
    # Late or not, it is published first: whoever fetches public keys must know it before the overlap is over.
    announced = min([now + ANNOUNCED, *(row.not_before for row in upcoming)])
    due = max(current.not_before + rotation.period, announced)
    successor = replace(upcoming[0], not_before=due) if upcoming else make(current.version + 1, due)
    return (*live[:-1], replace(current, not_after=due + rotation.overlap), replace(successor, not_after=None))

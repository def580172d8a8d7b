"""What was not delivered: pairs of an event and a destination that wait for long, or were given up.

The console lists and sums them up, deliverers measure how old the oldest is. A delivery that was made anew stands for
the one that it replays, so what a replay has delivered is delivered. What ended as cancelled is as somebody wanted it,
and is not undelivered. Why it was not delivered is what came of its last try, and before the first what
kapsel_store.holds says, as an explanation has it. Every statement walks an index, so many rows at a time: nothing costs
by what was delivered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from kapsel_store import facts, ids
from kapsel_store.database import Connection
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.events import FIRST_ID, LAST_ID
from kapsel_store.facts import MOST_AHEAD, Circumstances, Waiting
from kapsel_store.holds import holds, tokens, why
from kapsel_store.queries import statement
from kapsel_store.reasons import FAULTS, Fault, fault_of, is_among
from kapsel_store.states import State
from kapsel_store.turns import Place

LATE: Final = timedelta(minutes=1)  # what is as old as this and not delivered is worth a question
WIDTH: Final = 500  # deliveries that one step looks at
STEPS: Final = 10  # of one page
COUNTED: Final = 1000  # deliveries of one destination and sort that a summary counts
MEASURED: Final = 100  # of one destination that were given up: what the metric looks at, in each deliverer
ROUND: Final = 200  # destinations that are measured at once
ROUNDS: Final = 10
MOST_NAMED: Final = 1000  # destinations of one endpoint, those that it had before included


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """One that was not delivered, and why."""

    row: DeliveryRow
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Undelivered ones, the newest first, and where the next page begins."""

    found: tuple[Undelivered, ...]
    below: UUID | None  # None: nothing follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Undelivered ones of a destination that are so for one reason."""

    state: State
    reason: str
    fault: Fault
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was not delivered to one destination."""

    destination_id: UUID
    destination: str  # namespace/endpoint/name
    removed: bool
    groups: tuple[Group, ...]  # the gravest fault first, then the oldest
    more: bool  # there are more than were counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The oldest undelivered one of a destination that is somebody's fault, and whose."""

    destination: str
    fault: Fault
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    id: UUID
    namespace: str
    endpoint: str
    name: str
    removed: bool

    @property
    def label(self) -> str:
        """Return its name as metrics and command lines have it."""
        return f"{self.namespace}/{self.endpoint}/{self.name}"


async def page(
    connection: Connection,
    *,
    limit: int,
    now: datetime,
    late: timedelta = LATE,
    before: UUID | None = None,
    since: datetime | None = None,
    destination_ids: Sequence[UUID] | None = None,
    faults: Sequence[Fault] | None = None,
    reasons: Sequence[str] | None = None,
) -> Page:
    """Return undelivered ones with an id below `before`; a page may be short although more follows."""
    found: list[Undelivered] = []
    below, first = before or LAST_ID, FIRST_ID if since is None else ids.first_at(since)
    name = "undelivered.step" if destination_ids is None else "undelivered.step_of_destinations"
    extra = () if destination_ids is None else (list(destination_ids),)
    untried = _Untried(connection)
    for _ in range(STEPS):
        rows = await connection.fetch(statement(name), below, first, WIDTH, ids.first_at(now - late), *extra)
        await untried.look(row["destination_id"] for row in rows if row["last_reason"] is None)
        for row in rows:
            below, code = row["id"], untried.reason(row)
            if row["superseded"] or not _is_wanted(code, faults, reasons):
                continue
            fields = {name: row[name] for name in DeliveryRow.__dataclass_fields__}
            found.append(Undelivered(row=DeliveryRow(**{**fields, "state": State(fields["state"])}), reason=code))
            if len(found) == limit:
                return Page(found=tuple(found), below=below)
        if len(rows) < WIDTH:
            return Page(found=tuple(found), below=None)
    return Page(found=tuple(found), below=below)


def _is_wanted(reason: str, faults: Sequence[Fault] | None, reasons: Sequence[str] | None) -> bool:
    return (faults is None or fault_of(reason) in faults) and (reasons is None or is_among(reason, reasons))


async def summaries(
    connection: Connection,
    *,
    limit: int,
    now: datetime,
    late: timedelta = LATE,
    after: UUID = FIRST_ID,
    endpoint_id: UUID | None = None,
) -> tuple[list[Summary], UUID | None]:
    """Return what was not delivered to each of the next destinations, and after which the next page begins."""
    if endpoint_id is None:
        rows = await connection.fetch(statement("undelivered.destinations"), after, limit)
    else:
        rows = await connection.fetch(statement("undelivered.destinations_of"), endpoint_id, None, after, limit)
    wanted = [row["id"] for row in rows]
    places = await _places(connection, wanted)
    untried = _Untried(connection)
    await untried.look(wanted)
    groups: dict[UUID, dict[tuple[State, str], Group]] = {}
    more: set[UUID] = set()
    covered = [untried.covered.get(one) for one in wanted]
    for row in await connection.fetch(
        statement("undelivered.groups"), wanted, ids.first_at(now - late), COUNTED, covered
    ):
        state, code = State(row["state"]), untried.reason(row)
        of = groups.setdefault(row["destination_id"], {})
        known = of.get((state, code))
        of[state, code] = Group(
            state=state,
            reason=code,
            fault=fault_of(code),
            count=row["count"] + (0 if known is None else known.count),
            oldest=row["oldest"] if known is None else min(row["oldest"], known.oldest),
        )
        if row["walked"] >= COUNTED:
            more.add(row["destination_id"])
    found = [_summary(places[one], tuple(groups[one].values()), more=one in more) for one in wanted if one in groups]
    return found, wanted[-1] if len(wanted) == limit else None


async def destinations_of(connection: Connection, endpoint_id: UUID, name: str | None = None) -> list[UUID]:
    """Return the destinations that an endpoint has or had, all or those of a name."""
    rows = await connection.fetch(statement("undelivered.destinations_of"), endpoint_id, name, FIRST_ID, MOST_NAMED)
    return [row["id"] for row in rows]


async def oldest(connection: Connection, *, now: datetime) -> list[Oldest]:
    """Return the oldest undelivered one of each destination and fault, the worst off first, of so many destinations.

    Not of those that were removed: nobody can deliver what they did not get, so an alert of it would have no end.
    """
    found: list[Oldest] = []
    after: UUID | None = FIRST_ID
    for _ in range(ROUNDS):
        wanted = [row["id"] for row in await connection.fetch(statement("undelivered.destinations"), after, ROUND)]
        places, untried = await _places(connection, wanted), _Untried(connection)
        present = [one for one in wanted if not places[one].removed]
        rows = await connection.fetch(statement("undelivered.oldest"), present, ids.first_at(now - LATE), MEASURED)
        await untried.look(row["destination_id"] for row in rows if row["last_reason"] is None)
        first: dict[tuple[str, Fault], datetime] = {}
        for row in rows:
            owes = places[row["destination_id"]].label, fault_of(untried.reason(row))
            first[owes] = min(row["created_at"], first.get(owes, row["created_at"]))
        found += [Oldest(destination=label, fault=fault, created_at=at) for (label, fault), at in first.items()]
        if len(wanted) < ROUND:
            break
        after = wanted[-1]
    return sorted(found, key=lambda one: one.created_at)


class _Untried:
    """Tells what keeps those that were not tried yet: what is around them is read once for each destination."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._around: dict[UUID, Circumstances] = {}
        self._tokens: dict[UUID, int] = {}
        self.covered: dict[UUID, datetime] = {}  # when the last one is due that there is a token for

    async def look(self, destination_ids: Iterable[UUID]) -> None:
        """Read what is around the deliveries of these destinations, as far as that is not known yet."""
        fresh = list(set(destination_ids) - self._around.keys())
        if not fresh:
            return
        around = await facts.circumstances(self._connection, fresh)
        self._around |= around
        left = {one: tokens(each) for one, each in around.items()}
        # With none the first one waits already; with more than are ever counted ahead of one, none does.
        paced = {one: count for one, count in left.items() if count is not None and 0 < count <= MOST_AHEAD}
        rows = await self._connection.fetch(statement("explain.covered"), list(paced), list(paced.values()))
        self._tokens |= paced
        self.covered |= {row["id"]: row["due_at"] for row in rows if row["due_at"] is not None}

    def reason(self, row: asyncpg.Record) -> str:
        """Return why one, or a group of them, was not delivered: what came of it last, or else what keeps it."""
        if row["last_reason"] is not None:
            return why(row["last_reason"], ())
        around, covered = self._around[row["destination_id"]], self.covered.get(row["destination_id"])
        beyond = covered is not None and covered < min(row["due_at"], around.now)
        waits = Waiting(
            state=State(row["state"]),
            due_at=row["due_at"],
            ahead=self._tokens[row["destination_id"]] if beyond else 0,
            place=Place(
                held=row["held"],
                shown=None,
                ahead=0,
                head=None,
                head_state=None,
                blocked_by=row["blocked_by"],
                blocked_at=row["blocked_at"],
            ),
        )
        return why(None, tuple(holds(around, waits)))


async def _places(connection: Connection, wanted: Sequence[UUID]) -> dict[UUID, _Place]:
    rows = await connection.fetch(statement("undelivered.places"), wanted)
    return {row["id"]: _Place(**dict(row)) for row in rows}


def _summary(place: _Place, groups: Sequence[Group], *, more: bool) -> Summary:
    return Summary(
        destination_id=place.id,
        destination=place.label,
        removed=place.removed,
        groups=tuple(sorted(groups, key=lambda group: (-FAULTS.index(group.fault), group.oldest))),
        more=more,
    )

"""What was not delivered: pairs of an event and a destination that wait for long, or were given up.

The console lists and sums them up, deliverers measure how old the oldest is. A delivery that was made anew stands for
the one that it replays, so what a replay has delivered is delivered. What ended as cancelled is as somebody wanted it,
and is not undelivered. Every statement walks an index, so many rows at a time: nothing costs by what was delivered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from kapsel_store import ids, processes
from kapsel_store.database import Connection
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.events import FIRST_ID, LAST_ID
from kapsel_store.queries import statement
from kapsel_store.reasons import FAULTS, Fault, fault_of
from kapsel_store.states import State

LATE: Final = timedelta(minutes=1)  # what is as old as this and not delivered is worth a question
WIDTH: Final = 500  # deliveries that one step looks at
STEPS: Final = 10  # of one page
COUNTED: Final = 1000  # deliveries of one destination and sort that a summary counts
ROUND: Final = 200  # destinations that are measured at once
ROUNDS: Final = 10
MOST_NAMED: Final = 1000  # destinations of one endpoint, those that it had before included


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Undelivered ones, the newest first, and where the next page begins."""

    found: tuple[DeliveryRow, ...]
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
    """The oldest undelivered one of a destination, and whose fault it is."""

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
    suspend: bool
    circuit: str | None
    disabled: bool

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
    found: list[DeliveryRow] = []
    below, first = before or LAST_ID, FIRST_ID if since is None else ids.first_at(since)
    name = "undelivered.step" if destination_ids is None else "undelivered.step_of_destinations"
    extra = () if destination_ids is None else (list(destination_ids),)
    for _ in range(STEPS):
        rows = await connection.fetch(statement(name), below, first, WIDTH, ids.first_at(now - late), *extra)
        for row in rows:
            fields = dict(row)
            below = fields["id"]
            if fields.pop("superseded") or not _is_wanted(fields["last_reason"], faults, reasons):
                continue
            found.append(DeliveryRow(**{**fields, "state": State(fields["state"])}))
            if len(found) == limit:
                return Page(found=tuple(found), below=below)
        if len(rows) < WIDTH:
            return Page(found=tuple(found), below=None)
    return Page(found=tuple(found), below=below)


def _is_wanted(reason: str | None, faults: Sequence[Fault] | None, reasons: Sequence[str] | None) -> bool:
    """Whether a reason is asked for; what was not tried yet has none, and is for kapsel to explain."""
    fault: Fault = "ours" if reason is None else fault_of(reason)
    return (faults is None or fault in faults) and (reasons is None or reason in reasons)


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
    deliverers = await processes.live(connection, "deliverer")
    groups: dict[UUID, list[Group]] = {}
    more: set[UUID] = set()
    for row in await connection.fetch(statement("undelivered.groups"), wanted, ids.first_at(now - late), COUNTED):
        code = row["last_reason"] or _waits_for(places[row["destination_id"]], State(row["state"]), deliverers)
        groups.setdefault(row["destination_id"], []).append(
            Group(
                state=State(row["state"]), reason=code, fault=fault_of(code), count=row["count"], oldest=row["oldest"]
            )
        )
        if row["walked"] >= COUNTED:
            more.add(row["destination_id"])
    found = [_summary(places[one], groups[one], more=one in more) for one in wanted if one in groups]
    return found, wanted[-1] if len(wanted) == limit else None


async def destinations_of(connection: Connection, endpoint_id: UUID, name: str | None = None) -> list[UUID]:
    """Return the destinations that an endpoint has or had, all or those of a name."""
    rows = await connection.fetch(statement("undelivered.destinations_of"), endpoint_id, name, FIRST_ID, MOST_NAMED)
    return [row["id"] for row in rows]


async def oldest(connection: Connection, *, now: datetime) -> list[Oldest]:
    """Return the oldest undelivered one of each destination, the worst off first, of so many destinations."""
    found: list[Oldest] = []
    deliverers = await processes.live(connection, "deliverer")
    after: UUID | None = FIRST_ID
    for _ in range(ROUNDS):
        rows = await connection.fetch(statement("undelivered.destinations"), after, ROUND)
        wanted = [row["id"] for row in rows]
        places = await _places(connection, wanted)
        for row in await connection.fetch(statement("undelivered.oldest"), wanted, ids.first_at(now - LATE), COUNTED):
            place = places[row["destination_id"]]
            code = row["last_reason"] or _waits_for(place, State(row["state"]), deliverers)
            found.append(Oldest(destination=place.label, fault=fault_of(code), created_at=row["created_at"]))
        if len(wanted) < ROUND:
            break
        after = wanted[-1]
    return sorted(found, key=lambda one: one.created_at)


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


def _waits_for(place: _Place, state: State, deliverers: int) -> str:
    """Return what keeps a delivery that was not tried yet."""
    if state is State.SENDING:
        return "being_sent"
    if place.removed:
        return "destination_removed"
    if place.suspend:
        return "destination_suspended"
    if place.disabled:
        return "destination_disabled"
    if place.circuit in ("open", "half_open"):
        return f"circuit_{place.circuit}"
    return "due" if deliverers else "no_deliverer"

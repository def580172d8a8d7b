"""Replays as deliverers carry them out: take one that is due, find what it means, make new deliveries, see them end.

`take` locks the replay's row for the transaction it is called in, and everything else is done in that transaction: so
exactly one deliverer works on a replay at a time, and one that dies has done nothing of what it had not committed. The
walk goes in an order that never changes over rows that never change, so its place in the row is all there is to resume.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from kapsel_store import ids
from kapsel_store.database import Connection
from kapsel_store.events import FIRST_ID, LAST_ID
from kapsel_store.queries import one, statement
from kapsel_store.rows import Scheme
from kapsel_store.states import State

# Ids of one machine's clock are compared with another's: deliveries that were made anew carry the console's time.
SKEW: Final = timedelta(hours=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A replay that this transaction works on."""

    id: UUID
    namespace: str
    name: str
    endpoint_id: UUID
    destinations: tuple[UUID, ...] | None
    received_from: datetime
    received_to: datetime
    states: tuple[State, ...]
    dry_run: bool
    rate: int
    suspend: bool
    started_at: datetime | None
    counted_at: datetime | None
    enqueued_at: datetime | None
    completed_at: datetime | None
    matched: int
    enqueued: int
    skipped_events: int
    skipped_destinations: int
    delivered: int
    failed: int
    walked_event: UUID  # how far the walk is: up to and including this delivery of this event
    walked_delivery: UUID
    settled_to: UUID  # up to which of the new deliveries was looked for those that have ended
    now: datetime  # by the database
    reasons: tuple[str, ...] | None = None  # these four as ReplayRow has them
    missing: bool = False
    anyway: bool = False
    filter: str | None = None
    skipped_pending: int = 0
    unjudged: int = 0

    @property
    def open(self) -> int:
        """How many new deliveries have not ended."""
        return self.enqueued - self.delivered - self.failed

    @property
    def walked(self) -> int:
        """How many of the matched deliveries the second walk has been at."""
        return self.enqueued + self.skipped_events + self.skipped_destinations + self.skipped_pending

    def rewound(self) -> "Run":
        """Return the run before the first step of a walk."""
        return replace(self, walked_event=FIRST_ID, walked_delivery=FIRST_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """One delivery of the selection."""

    id: UUID
    event_id: UUID
    destination_id: UUID
    gone: bool  # the event's retention is over
    removed: bool  # the destination is
    order_key: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step of the walk found, and where it ended."""

    found: tuple[Matched, ...]
    walked_event: UUID
    walked_delivery: UUID
    last: bool  # nothing follows
    unjudged: int = 0  # the filter could not be evaluated on their event
    seconds: float = 0.0  # that evaluating took

    def until(self, one: Matched) -> "Step":
        """Return the step as it is if it ended with one of those that it found."""
        by_events = self.walked_event != FIRST_ID
        event_id = one.event_id if by_events else FIRST_ID
        return replace(self, walked_event=event_id, walked_delivery=one.id, last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What expressions need to know of the endpoint of a run."""

    namespace: str
    name: str
    scheme: Scheme
    order_keys: Mapping[UUID, str]  # by destination, of those that ask for order


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What was stored of an event."""

    received_at: datetime
    headers: str
    body: bytes


async def running(connection: Connection) -> int:
    """Return how many replays have anything to do."""
    return int(await connection.fetchval(statement("replays.running")))


async def take(connection: Connection) -> Run | None:
    """Lock a replay that is due; None if there is none that nobody else works on."""
    row = await connection.fetchrow(statement("replays.take"))
    if row is None:
        return None
    fields = dict(row)
    del fields["bounded"]
    destinations, reasons = fields.pop("destinations"), fields.pop("reasons")
    return Run(
        destinations=None if destinations is None else tuple(destinations),
        reasons=None if reasons is None else tuple(reasons),
        states=tuple(State(state) for state in fields.pop("states")),
        **fields,
    )


async def step(connection: Connection, run: Run, *, most: int, width: int) -> Step:
    """Take one step of the walk: find at most `most` deliveries of the selection in about `width` rows.

    What was final when the run began is selected, so it is the same on each walk.
    """
    if run.missing or State.DELIVERED in run.states:
        return await _step_of_events(connection, run, most, width)
    return await _step_of_not_delivered(connection, run, most, width)


async def _step_of_events(connection: Connection, run: Run, most: int, width: int) -> Step:
    high = _first(run.received_to)
    begin = max(_first(run.received_from), run.walked_event)
    end = await connection.fetchval(
        statement("replays.step_of_events"), run.endpoint_id, begin, high, min(width, 2 * most)
    )
    place = (run.endpoint_id, begin, end or _below(high), run.walked_delivery)
    youngest = _first(run.received_from, SKEW)
    if run.missing:
        rows = await connection.fetch(
            statement("replays.matched_of_missing"), *place, run.started_at, run.destinations, most, youngest
        )
    else:
        rows = await connection.fetch(
            statement("replays.matched_of_events"),
            *place,
            run.states,
            run.started_at,
            run.destinations,
            most,
            youngest,
            run.reasons,
            run.anyway,
        )
    found = tuple(Matched(**dict(row)) for row in rows)
    if len(found) == most:
        return Step(found=found, walked_event=found[-1].event_id, walked_delivery=found[-1].id, last=False)
    return Step(found=found, walked_event=end or high, walked_delivery=LAST_ID, last=end is None)


async def _step_of_not_delivered(connection: Connection, run: Run, most: int, width: int) -> Step:
    started = run.started_at or run.now
    begin = max(_first(run.received_from, SKEW), run.walked_delivery)
    beyond = ids.first_at(started + SKEW)
    end = await connection.fetchval(statement("replays.step_of_not_delivered"), begin, beyond, width)
    rows = await connection.fetch(
        statement("replays.matched_of_not_delivered"),
        run.endpoint_id,
        _first(run.received_from),
        begin,
        end or beyond,
        run.states,
        started,
        run.destinations,
        most,
        _first(run.received_to),
        run.reasons,
        run.anyway,
    )
    found = tuple(Matched(**dict(row)) for row in rows)
    if len(found) == most:
        return Step(found=found, walked_event=FIRST_ID, walked_delivery=found[-1].id, last=False)
    return Step(found=found, walked_event=FIRST_ID, walked_delivery=end or beyond, last=end is None)


async def around(connection: Connection, run: Run) -> Around:
    """Return what expressions need to know of the endpoint of a run."""
    row = dict(await one(connection, "replays.around", run.endpoint_id))
    return Around(order_keys=dict(zip(row.pop("ids"), row.pop("keys"), strict=True)), **row)


async def contents(connection: Connection, event_ids: Sequence[UUID], most_bytes: int) -> dict[UUID, Content | None]:
    """Return what was stored of the first of these events, of about so many bytes; None for one that is gone."""
    rows = await connection.fetch(statement("replays.events_of"), event_ids, most_bytes)
    return {
        row["id"]: None
        if row["body"] is None
        else Content(received_at=row["received_at"], headers=row["headers"], body=row["body"])
        for row in rows
    }


async def enqueue(connection: Connection, run: Run, chosen: Sequence[Matched]) -> int:
    """Make a new delivery of each and return how many were made; what is being delivered again gets no second one."""
    made = await connection.fetch(
        statement("replays.enqueue"),
        run.id,
        run.endpoint_id,
        [ids.new() for _ in chosen],
        [one.id for one in chosen],
        [one.event_id for one in chosen],
        [one.destination_id for one in chosen],
        [one.order_key for one in chosen],
        run.missing,
        run.anyway,
    )
    return len(made)


async def settle(connection: Connection, run: Run, most: int) -> Run:
    """Count which of the new deliveries have ended, `most` of the open ones at a time, from where it was left."""
    row = await one(connection, "replays.settle", run.id, run.settled_to, most)
    return replace(
        run,
        delivered=run.delivered + row["delivered"],
        failed=run.failed + row["failed"],
        settled_to=row["last"] if row["looked"] == most else FIRST_ID,
    )


async def save(connection: Connection, run: Run, again_in: timedelta) -> None:
    """Write how far a run is, and when somebody is to go on with it."""
    await connection.execute(
        statement("replays.save"),
        run.id,
        run.started_at,
        run.counted_at,
        run.enqueued_at,
        run.completed_at,
        run.matched,
        run.enqueued,
        run.skipped_events,
        run.skipped_destinations,
        run.delivered,
        run.failed,
        run.walked_event,
        run.walked_delivery,
        run.settled_to,
        again_in,
        run.skipped_pending,
        run.unjudged,
    )


async def put_off(connection: Connection, replay_id: UUID, again_in: timedelta) -> None:
    """Leave a replay alone for a while, so that what is wrong with it does not keep others waiting."""
    await connection.execute(statement("replays.put_off"), replay_id, again_in)


def _first(moment: datetime, margin: timedelta = timedelta(0)) -> UUID:
    """Return the smallest id of a moment, or of `margin` before it; there was none before ids were counted."""
    return ids.first_at(max(moment, _EPOCH + margin) - margin)


def _below(identifier: UUID) -> UUID:
    return UUID(int=identifier.int - 1)

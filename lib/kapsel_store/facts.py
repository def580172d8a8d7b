"""What is known about one delivery, or about what keeps those of many destinations, for whoever explains it.

Only facts: what they mean is for pure functions to say. Every statement finds its rows by an index, and counts up to a
bound, so that asking costs the same whatever waits and whatever history there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from kapsel_store import attempts, circuits, deliveries, limits, processes, specs, tlog, turns
from kapsel_store.attempts import ListedAttempt
from kapsel_store.circuits import CircuitRow
from kapsel_store.database import Connection
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.ids import followers_from
from kapsel_store.limits import Bucket, Grant
from kapsel_store.queries import one, statement
from kapsel_store.rows import DestinationRow
from kapsel_store.states import State
from kapsel_store.turns import Place

MOST_AHEAD: Final = 1000  # deliveries counted before this one
TRIES: Final = 5  # the newest
FAMILY: Final = 20  # deliveries of the same event to the same destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Another delivery of the same event to the same destination, or this one."""

    id: UUID
    state: State
    created_at: datetime
    finished_at: datetime | None
    last_reason: str | None
    replay_of: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """Where the newest attempt is on its way into the log."""

    attempt_id: UUID
    leaf_index: int | None  # None: it waits for one
    published: bool  # whether a signed head covers it
    frozen_reason: str | None  # of the log that it is in, or of the newest if it is in none
    parked_reason: str | None  # why the sequencer has laid it aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What of a delivery itself decides what it waits for."""

    state: State
    due_at: datetime
    ahead: int = 0  # due deliveries of the destination that were due before; MOST_AHEAD means that or more
    place: Place | None = None  # in the line of its order key; None: it has none, or has ended
    lease_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What keeps the deliveries of one destination, whichever they are."""

    now: datetime  # by the database
    destination: DestinationRow
    removed: bool  # the destination is
    circuit: CircuitRow | None  # None: as fresh as on the first day
    sending: int  # tries under way at the destination
    deliverers: frozenset[str]  # that are alive, by instance
    slots: Mapping[str, Grant] = field(default_factory=dict)  # of the destination, by instance
    bucket: Bucket | None = None  # of the destination; None: nobody has drawn from it
    lacking: int = 0  # deliverers that are alive and have no place for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Circumstances):
    """One delivery and what is around it."""

    delivery: DeliveryRow
    ahead: int  # as Waiting has it, like the next two
    lease_expires_at: datetime | None
    place: Place | None = None
    tries: tuple[ListedAttempt, ...]  # the newest first, at most TRIES
    family: tuple[Relative, ...]  # the oldest first, this one included
    event_there: bool
    event_erased: bool
    leaf: Leaf | None  # None: it was not tried

    @property
    def waits(self) -> Waiting:
        """Return what of it decides what it waits for."""
        return Waiting(
            state=self.delivery.state,
            due_at=self.delivery.due_at,
            ahead=self.ahead,
            place=self.place,
            lease_expires_at=self.lease_expires_at,
        )


async def gather(connection: Connection, delivery_id: UUID) -> Facts | None:
    """Return what is known about a delivery, None if there is none; call it in a transaction of one snapshot."""
    delivery = await deliveries.get(connection, delivery_id)
    if delivery is None:
        return None
    around = (await circumstances(connection, [delivery.destination_id]))[delivery.destination_id]
    own = await one(
        connection,
        "explain.own",
        delivery.destination_id,
        delivery.event_id,
        delivery.due_at,
        MOST_AHEAD,
        delivery.id,
    )
    tries = await attempts.page(connection, now=around.now, limit=TRIES, delivery_id=delivery.id)
    event_id = delivery.event_id
    family = await connection.fetch(
        statement("explain.family"), event_id, delivery.destination_id, FAMILY, followers_from(event_id)
    )
    return Facts(
        **{name: getattr(around, name) for name in Circumstances.__dataclass_fields__},
        **dict(own),
        delivery=delivery,
        tries=tuple(tries),
        family=tuple(Relative(**{**dict(row), "state": State(row["state"])}) for row in reversed(family)),
        leaf=await leaf(connection, tries[0].attempt.id) if tries else None,
        place=await turns.place(connection, delivery.id, MOST_AHEAD),
    )


async def circumstances(connection: Connection, destination_ids: Sequence[UUID]) -> dict[UUID, Circumstances]:
    """Return what keeps the deliveries of these destinations, by destination."""
    wanted = list(destination_ids)
    rows = await connection.fetch(statement("explain.circumstances"), wanted)
    stopped = await circuits.load(connection, wanted)
    slots, buckets = await limits.slots_of(connection, wanted), await limits.buckets_of(connection, wanted)
    deliverers = frozenset(
        process.instance for process in await processes.list_live(connection) if process.component == "deliverer"
    )
    return {
        row["id"]: Circumstances(
            now=row["now"],
            destination=specs.destination(row["spec"], row["policy"]),
            removed=row["removed"],
            circuit=stopped.get(row["id"]),
            sending=row["sending"],
            deliverers=deliverers,
            slots=slots[row["id"]],
            bucket=buckets[row["id"]],
            lacking=row["lacking"],
        )
        for row in rows
    }


async def leaf(connection: Connection, attempt_id: UUID) -> Leaf:
    """Return where an attempt is on its way into the log."""
    found = await tlog.leaf_of_attempt(connection, attempt_id)
    states = await tlog.states(connection)
    log = next((one for one in states if found is not None and one.id == found[0]), None)
    if log is None and states:
        log = max(states, key=lambda one: one.id)
    head = None if log is None else await tlog.latest_head(connection, log.id)
    index = None if found is None else found[1].leaf_index
    return Leaf(
        attempt_id=attempt_id,
        leaf_index=index,
        published=index is not None and head is not None and head.tree_size > index,
        frozen_reason=None if log is None else log.frozen_reason,
        parked_reason=await connection.fetchval(statement("explain.parked"), attempt_id),
    )

"""Events: what was accepted. The receiver inserts them, the console lists them; nobody changes them but by erasure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from kapsel_store import hints
from kapsel_store.database import Connection
from kapsel_store.errors import PartlyStoredError
from kapsel_store.ids import first_at
from kapsel_store.queries import newest, statement
from kapsel_store.rows import Accepted, Duplicate, NewEvent

LAST_ID = UUID(int=2**128 - 1)
FIRST_ID = UUID(int=0)

_Key = tuple[UUID, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One stored event as a list shows it."""

    id: UUID
    endpoint_id: UUID
    namespace: str
    name: str
    received_at: datetime
    content_type: str
    size: int | None  # bytes of the body; None once it was erased, or its retention is over
    body_hash: bytes | None  # None once it was erased
    correlation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One stored event whole."""

    id: UUID
    endpoint_id: UUID
    namespace: str
    name: str
    received_at: datetime
    content_type: str
    headers: str | None  # JSON: a list of [name, value] pairs; None once it was erased, or its retention is over
    body: bytes | None  # None once it was erased, or its retention is over
    body_hash: bytes | None  # None once it was erased; the correlation id, too
    correlation_id: str | None
    erased_at: datetime | None


async def insert(
    connection: Connection, batch: Sequence[NewEvent], *, hint: Collection[UUID] = ()
) -> list[Accepted | Duplicate]:
    """Store the new events of a batch and queue their deliveries in ONE commit; answer in the order of the batch.

    The commit itself tells the deliverers of the destinations in `hint`, which is quickest for a few events and slows
    down many. Raises PartlyStoredError if the database refuses a statement that follows the commit of another one.
    """
    said = hints.naming(hint) if hint else None
    firsts = _first_of_each_key(batch)
    known: dict[_Key | UUID, UUID] = {}
    while missing := {key: event for key, event in firsts.items() if key not in known}:
        try:
            stored = await _insert(connection, list(missing.values()), said)
            # A crash from here on: the events are durable, the caller was told nothing, and sends them again as
            # duplicates.
            known |= {key: event.id for key, event in missing.items() if event.id in stored}
            known |= await _seen_before(
                connection, [key for key in missing if isinstance(key, tuple) and key not in known]
            )
        except asyncpg.PostgresError as error:
            if known:
                raise PartlyStoredError(error) from error
            raise
        # What is still missing was known a moment ago and forgotten since, its window being over: it is new again.
    return [_answer(event, firsts, known) for event in batch]


async def _insert(connection: Connection, events: list[NewEvent], hint: str | None) -> set[UUID]:
    deliveries = [(event, delivery) for event in events for delivery in event.deliveries]
    ordered = any(delivery.order_key is not None for _, delivery in deliveries)
    lines = (
        ([delivery.order_key for _, delivery in deliveries], [delivery.order_shown for _, delivery in deliveries])
        if ordered
        else ()
    )
    *columns, _ = zip(*events, strict=True)
    rows = await connection.fetch(
        statement("events.insert_ordered" if ordered else "events.insert"),
        *columns,
        [delivery.id for _, delivery in deliveries],
        [event.id for event, _ in deliveries],
        [event.endpoint_id for event, _ in deliveries],
        [delivery.destination_id for _, delivery in deliveries],
        [delivery.max_age for _, delivery in deliveries],
        hint,
        *lines,
    )
    return {row["id"] for row in rows}


async def _seen_before(connection: Connection, keys: list[_Key]) -> dict[_Key | UUID, UUID]:
    if not keys:
        return {}
    rows = await connection.fetch(
        statement("events.first_seen"), [endpoint for endpoint, _ in keys], [key for _, key in keys]
    )
    return {(row["endpoint_id"], row["key"]): row["event_id"] for row in rows}


def _key(event: NewEvent) -> _Key | UUID:
    """What makes an event unique: its idempotency key at its endpoint, or without one only itself."""
    return event.id if event.idempotency_key is None else (event.endpoint_id, event.idempotency_key)


def _first_of_each_key(batch: Sequence[NewEvent]) -> dict[_Key | UUID, NewEvent]:
    firsts: dict[_Key | UUID, NewEvent] = {}
    for event in batch:
        firsts.setdefault(_key(event), event)
    return firsts


def _answer(
    event: NewEvent, firsts: dict[_Key | UUID, NewEvent], known: dict[_Key | UUID, UUID]
) -> Accepted | Duplicate:
    key = _key(event)
    event_id = known[key]
    if event_id == event.id and firsts[key] is event:
        return Accepted(event_id=event_id)
    return Duplicate(event_id=event_id)


async def get(connection: Connection, event_id: UUID) -> StoredEvent | None:
    """Return one event whole, or None."""
    row = await connection.fetchrow(statement("events.get"), event_id)
    return None if row is None else StoredEvent(**dict(row))


async def page(
    connection: Connection,
    *,
    now: datetime,
    limit: int,
    before: UUID | None = None,
    since: datetime | None = None,
    endpoint_id: UUID | None = None,
) -> list[EventRow]:
    """Return the newest events first: those with an id below `before`, received since `since`."""
    bounds = (before or LAST_ID, FIRST_ID if since is None else first_at(since), limit)
    if endpoint_id is None:
        rows = await newest(connection, "events.page", *bounds, now=now)
    else:
        rows = await newest(connection, "events.page_of_endpoint", *bounds, endpoint_id, now=now)
    return [EventRow(**dict(row)) for row in rows]

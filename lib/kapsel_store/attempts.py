"""Attempts as people see them. They are written by `deliveries.record` alone, and never changed."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from kapsel_store.database import Connection
from kapsel_store.events import FIRST_ID, LAST_ID
from kapsel_store.ids import first_at, followers_from
from kapsel_store.queries import newest, statement
from kapsel_store.rows import AttemptRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAttempt:
    """One attempt with the names of where it came from and went to, and its place in the log."""

    attempt: AttemptRow
    namespace: str
    name: str
    destination: str
    leaf_index: int | None  # None until the sequencer has taken it


async def get(connection: Connection, attempt_id: UUID) -> ListedAttempt | None:
    """Return one attempt, or None."""
    row = await connection.fetchrow(statement("attempts.get"), attempt_id)
    return None if row is None else _listed(row)


async def page(
    connection: Connection,
    *,
    now: datetime,
    limit: int,
    before: UUID | None = None,
    since: datetime | None = None,
    endpoint_id: UUID | None = None,
    delivery_id: UUID | None = None,
    event_id: UUID | None = None,
) -> list[ListedAttempt]:
    """Return the newest attempts first, of one delivery, of one event, or of one endpoint or all.

    Those of a delivery or of an event are few and fill no page: they are looked for from the day before it on.
    """
    below, lowest = before or LAST_ID, FIRST_ID if since is None else first_at(since)
    if delivery_id is not None:
        bounds = below, max(lowest, followers_from(delivery_id)), limit
        rows = await connection.fetch(statement("attempts.page_of_delivery"), *bounds, delivery_id)
    elif event_id is not None:
        first = followers_from(event_id)
        bounds = below, max(lowest, first), limit
        rows = await connection.fetch(statement("attempts.page_of_event"), *bounds, event_id, first)
    else:
        rows = await newest(connection, "attempts.page", below, lowest, limit, endpoint_id, now=now)
    return [_listed(row) for row in rows]


def _listed(row: asyncpg.Record) -> ListedAttempt:
    fields = dict(row)
    around = {name: fields.pop(name) for name in ("namespace", "name", "destination", "leaf_index")}
    return ListedAttempt(attempt=AttemptRow(**fields), **around)

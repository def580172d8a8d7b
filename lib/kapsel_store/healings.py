"""Gap healing in the database: whose turn it is, which events are here, and what the last look came to.

Deliverers take turns and record; the operator reads. What was asked for again is GitHub's to send: it arrives like any
other webhook, and leaves no trace here but a number.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from kapsel_store.database import Connection
from kapsel_store.queries import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """What the last look at a hook came to."""

    checked_at: datetime
    reason: str
    message: str
    missing: int  # events that GitHub could not deliver and that are not here
    requested: int  # deliveries that were asked for again, ever


async def take(connection: Connection, endpoint_id: UUID, period: timedelta) -> bool:
    """Return whether it is time to look, and this one's turn; then it is nobody's for a period."""
    return bool(await connection.fetchval(statement("healings.take"), endpoint_id, period))


async def held(connection: Connection, endpoint_id: UUID, keys: Iterable[bytes]) -> set[bytes]:
    """Return those of the idempotency keys under which an event is here."""
    return {row["key"] for row in await connection.fetch(statement("healings.held"), endpoint_id, list(keys))}


async def record(
    connection: Connection,
    endpoint_id: UUID,
    *,
    reason: str,
    message: str,
    missing: int,
    requested: int,
    not_before: timedelta,
) -> None:
    """Record a look; the next one comes after its period, and not before this time has passed."""
    await connection.execute(
        statement("healings.record"), endpoint_id, reason, message[:1024], missing, requested, not_before
    )


async def all_of(connection: Connection) -> dict[UUID, Healing]:
    """Return the last looks by endpoint."""
    found = await connection.fetch(statement("healings.all"))
    return {row["endpoint_id"]: Healing(**{name: row[name] for name in Healing.__dataclass_fields__}) for row in found}

"""Erasures: events that are forgotten for good. The console asks for one, and goes on with it until nothing is left.

All of it is done by the function `erase_event` of the database, which alone may take something out of rows that are
otherwise append-only, and takes only what migration 0003 lists. A pass does what can be done at that moment: a try that
is under way is recorded after it, and an attempt without a leaf needs its hashes until it has one. So there are further
passes, soon after the first and ever more seldom, for as long as the event's row is there.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from kapsel_store.database import Connection
from kapsel_store.queries import one, statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What a pass found and did."""

    is_first: bool  # nobody has asked for this before
    erased_at: datetime
    cancelled: int  # deliveries that waited, and were ended by this pass
    under_way: int  # deliveries that are being sent at this moment
    tries: int  # attempts of the event, whose answers and hashes are gone
    without_leaf: int  # those of them that keep the hashes which their leaf needs

    @property
    def complete(self) -> bool:
        """Whether nothing of the event is left that could be read or guessed."""
        return self.under_way == 0 and self.without_leaf == 0


async def erase(connection: Connection, event_id: UUID) -> Pass | None:
    """Forget an event as far as that can be now; None if there is none, or its retention is over."""
    fields = dict(await one(connection, "erasures.erase", event_id))
    return Pass(**fields) if fields.pop("known") else None


async def erased_at(connection: Connection, event_id: UUID) -> datetime | None:
    """Return since when an event is forgotten, or None."""
    moment: datetime | None = await connection.fetchval(statement("erasures.get"), event_id)
    return moment


async def due(connection: Connection, limit: int, *, without: Collection[UUID] = ()) -> list[UUID]:
    """Return forgotten events that are to be looked at again, `without` some."""
    return [row["event_id"] for row in await connection.fetch(statement("erasures.due"), limit, list(without))]


async def incomplete(connection: Connection) -> int:
    """Return of how many events something was left after the last pass."""
    return int(await connection.fetchval(statement("erasures.incomplete")))

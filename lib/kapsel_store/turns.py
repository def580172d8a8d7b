"""Order by key: whose turn it is, and what becomes of a key whose first delivery was given up.

Whoever inserts a delivery with an order key puts it in line: numbers are taken under the lock of the key's row, so they
are in the order of the commits. Only the first of a line may be claimed. Whatever ends it leaves a note in the same
commit, and `pass_on` gives the turn to the next: deliverers call it after each record, and `sweep` finds what they left
behind. In between nobody of that key is sent, so a crash costs time and never the order.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from kapsel_store.database import Connection, again
from kapsel_store.queries import statement
from kapsel_store.states import State

Line = tuple[UUID, bytes]  # a destination and one of its order keys

NO_TURN: Final = datetime(3000, 1, 1, tzinfo=UTC)  # when a delivery is due that waits for others of its key
BEFORE_ALL: Final[Line] = (UUID(int=0), b"")
SHOWN: Final = 120  # characters of a key that people get to see
MOST_COUNTED: Final = 1000  # deliveries of one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A key that waits for a person."""

    namespace: str
    endpoint: str
    destination: str
    destination_id: UUID
    key: bytes
    shown: str | None  # None: only what was sent once more has made this line
    blocked_by: UUID  # the delivery that was given up
    blocked_at: datetime
    event_id: UUID | None  # of that delivery; None once its retention is over, like the next two
    attempts: int | None
    last_reason: str | None
    waiting: int  # MOST_COUNTED + 1 means more than that


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a live delivery stands in its line."""

    held: bool  # others of its key come first
    shown: str | None
    ahead: int  # live deliveries of its key before it; MOST_COUNTED + 1 means more than that
    head: UUID | None  # the first live one of its key
    head_state: State | None
    blocked_by: UUID | None  # the delivery that was given up, and that all of the key wait for
    blocked_at: datetime | None


def digest(destination_id: UUID, key: str) -> bytes:
    """Return what stands for an order key in the rows: deliveries outlive the line, and must not keep what it says."""
    return hashlib.sha256(destination_id.bytes + b"key" + key.encode(errors="surrogatepass")).digest()[:16]


def fallback(destination_id: UUID) -> bytes:
    """Return the one key of a destination for all events that have none of their own."""
    return hashlib.sha256(destination_id.bytes + b"none").digest()[:16]


def shown(key: str) -> str:
    """Return a key as it can be stored and listed: shortened, and without what is no text."""
    short = key[:SHOWN] + ("…" if len(key) > SHOWN else "")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in short)


async def pass_on(connection: Connection, lines: Collection[Line]) -> int:
    """Give the turn of these lines, whose first delivery has ended, to the next; return how many may be claimed now.

    Losing this in a crash only loses time, so the connection may have synchronous_commit off.
    """
    arguments = [line[0] for line in lines], [line[1] for line in lines]
    # Who is next may be cancelled at this very moment: then look once more who is.
    return int(await again(lambda: connection.fetchval(statement("turns.pass"), *arguments)))


async def sweep(connection: Connection, limit: int = 1000) -> int:
    """Pass on what was left behind, and unblock keys that nothing shall block any more; return how many may go on."""
    passed = 0
    for row in await connection.fetch(statement("turns.blocking_in_vain")):
        await unblock(connection, row["destination_id"])
    notes = limit
    # Where much ends all the time there is always something, and who ended it deals with it: one look is enough.
    while notes == limit and (rows := await connection.fetch(statement("turns.ended"), limit)):
        notes = sum(row["notes"] for row in rows)
        passed += await pass_on(connection, [(row["destination_id"], row["key"]) for row in rows])
    return passed


async def unblock(connection: Connection, destination_id: UUID, blocked_by: UUID | None = None) -> list[Line]:
    """Skip what blocks keys of a destination, or only this delivery; return the lines to pass on after the commit."""
    rows = await connection.fetch(statement("turns.unblock"), destination_id, blocked_by)
    # A crash here leaves keys that nothing blocks and nobody has: the next sweep passes their turns.
    return [(row["destination_id"], row["key"]) for row in rows]


async def blocked(
    connection: Connection, *, limit: int, after: Line = BEFORE_ALL, counted: int = MOST_COUNTED
) -> list[Blocked]:
    """Return the blocked keys by destination, those that follow `after`."""
    rows = await connection.fetch(statement("turns.blocked"), *after, limit, counted)
    return [Blocked(**dict(row)) for row in rows]


async def count_blocked(connection: Connection) -> int:
    """Return how many keys are blocked."""
    return int(await connection.fetchval(statement("turns.count_blocked")))


async def place(connection: Connection, delivery_id: UUID, counted: int = MOST_COUNTED) -> Place | None:
    """Return where a delivery stands in its line; None if it has no key, or has ended."""
    row = await connection.fetchrow(statement("turns.of_delivery"), delivery_id, counted)
    if row is None:
        return None
    fields = dict(row)
    state = fields.pop("head_state")
    return Place(head_state=None if state is None else State(state), **fields)

"""The rows of anchors: which heads calendars were asked to date, and what they have said so far.

The attestor writes them while it leads a log, the console and the prover read them. What stands in an OpenTimestamps
file is not known here: callers bring it finished, and the database makes sure that it only grows.
"""

from dataclasses import dataclass
from datetime import timedelta

from kapsel_store.database import Connection
from kapsel_store.queries import one, statement
from kapsel_store.tlog import HeadRow


@dataclass(frozen=True, slots=True, kw_only=True)
class DueAnchor:
    """A head that calendars are to be asked about."""

    log_id: int
    timestamp_ms: int  # of the head
    tree_size: int
    checkpoint: str  # the signed note as it was published: its bytes are what is dated
    nonce: bytes  # 16 bytes, so that a calendar learns nothing of what it dates
    ots: bytes | None  # None until a calendar has answered
    height: int | None  # of the block, as a calendar says; None until one does
    age: timedelta
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A head and the OpenTimestamps file of its checkpoint."""

    head: HeadRow
    ots: bytes
    height: int | None  # of the block, as a calendar says; None while it is only promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest anchor of a log, of all or of those that are confirmed."""

    timestamp_ms: int  # of the head
    tree_size: int
    ots: bytes | None
    height: int | None
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """How many anchors wait for a block, and how long the oldest one does."""

    count: int
    oldest: timedelta | None


async def begin(connection: Connection, log_id: int, interval: timedelta, nonce: bytes) -> bool:
    """Note that the newest head is to be anchored, if one is due; return whether it is."""
    return await connection.fetchval(statement("anchors.begin"), log_id, interval, nonce) is not None


async def due(connection: Connection, limit: int) -> list[DueAnchor]:
    """Return anchors, of whichever log, about which it is time to ask, those that wait longest first."""
    return [DueAnchor(**dict(row)) for row in await connection.fetch(statement("anchors.due"), limit)]


async def keep(
    connection: Connection,
    anchor: DueAnchor,
    *,
    ots: bytes | None,
    height: int | None,
    complete: bool,
    next_in: timedelta,
) -> bool:
    """Store what is known of an anchor now; return False, and change nothing, if another attestor was faster."""
    kept = await connection.fetchval(
        statement("anchors.keep"), anchor.log_id, anchor.timestamp_ms, anchor.ots, ots, height, complete, next_in
    )
    return kept is not None


async def covering(connection: Connection, log_id: int, leaf_index: int) -> Anchored | None:
    """Return the first head over a leaf that a block holds, or else the first that a calendar promised to date."""
    row = await connection.fetchrow(statement("anchors.covering"), log_id, leaf_index)
    if row is None:
        return None
    fields = dict(row)
    ots, height = fields.pop("ots"), fields.pop("height")
    return Anchored(head=HeadRow(**fields), ots=ots, height=height)


async def of_head(connection: Connection, head: HeadRow) -> bytes | None:
    """Return the OpenTimestamps file of exactly this head's checkpoint, or None."""
    found: bytes | None = await connection.fetchval(statement("anchors.of_head"), head.log_id, head.timestamp_ms)
    return found


async def newest(connection: Connection, log_id: int) -> Newest | None:
    """Return the newest anchor of a log, whatever has become of it."""
    row = await connection.fetchrow(statement("anchors.newest"), log_id)
    return None if row is None else Newest(**dict(row))


async def newest_confirmed(connection: Connection, log_id: int) -> Newest | None:
    """Return the anchor with the newest head of those that are in a block, as a calendar says."""
    row = await connection.fetchrow(statement("anchors.newest_confirmed"), log_id)
    return None if row is None else Newest(**dict(row))


async def pending(connection: Connection, log_id: int) -> Pending:
    """Return how many anchors of a log are in no block yet."""
    return Pending(**dict(await one(connection, "anchors.pending", log_id)))

"""The rows of the Merkle log: attempts that wait for a leaf, leaves, tiles, heads.

The attestor appends and publishes, the console and the prover read. Hashing and the shape of the tree are not here:
callers bring finished tiles and roots, and the database makes sure that there is one writer and that nothing shrinks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_store.database import Connection, drop
from kapsel_store.errors import ErasedMeanwhileError, StaleTreeError
from kapsel_store.ids import timestamp
from kapsel_store.queries import one, statement

FIRST: Final = str(UUID(int=0))  # comes before all ids


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """One log: how far it is, and why it stands still if it does."""

    id: int
    origin: str
    tree_size: int
    root: bytes
    frozen_reason: str | None


class PendingAttempt(NamedTuple):
    """What the leaf of an attempt will record; a plain tuple, for the sequencer takes tens of thousands a second.

    Ids and hashes are the text that a leaf has of them: nobody asks for anything else, and making objects or bytes of
    them to make text of these costs more than all the rest of reading them.
    """

    id: str  # ids are in lower case, with hyphens
    delivery_id: str
    event_id: str
    endpoint_id: str
    namespace: str
    name: str
    destination: str
    number: int
    started_at: datetime
    outcome: str
    reason: str
    url: str
    payload_hash: str  # hashes are in hex
    payload_commitment: str | None
    signature_digest: str | None
    response_status: int | None
    response_digest: str | None
    acknowledgement_base: bytes | None
    acknowledgement_key: bytes | None
    acknowledgement_signature: bytes | None
    sent_hash: str | None = None


# PendingAttempt._make at half its cost: the statement has as many columns as there are fields.
_pending = partial(tuple.__new__, PendingAttempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """An attempt that could not be put into the log, and when that is tried again."""

    attempt_id: UUID
    reason: str
    tries: int
    parked_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The last leaf of one endpoint."""

    endpoint_id: str  # as leaves have it
    sequence: int
    leaf_hash: bytes


class NewLeaf(NamedTuple):
    """One leaf that is to be stored."""

    leaf_index: int
    attempt_id: str | None  # None: the log says something about itself
    leaf: bytes


class LeafRow(NamedTuple):
    """One stored leaf; its bytes are None once they were erased."""

    leaf_index: int
    attempt_id: UUID | None  # None: the log says something about itself
    leaf: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRow:
    """Up to 256 hashes of 32 bytes, side by side."""

    level: int
    index: int
    hashes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRow:
    """One signed and published head."""

    log_id: int
    timestamp_ms: int
    tree_size: int
    root: bytes
    checkpoint: str
    sth_signature: bytes
    public_key: bytes  # of the key that signed it, so that it can be told apart after a rotation
    published_at: datetime | None = None  # None until it is stored


async def try_lock(connection: Connection, origin: str) -> bool:
    """Become the only sequencer of a log, until `unlock` or the end of this connection; False if another one is.

    Whoever gives up waiting loses the connection: it may have the lock, and nobody who is given it next would know.
    """
    try:
        return bool(await connection.fetchval(statement("tlog.try_lock"), origin))
    except BaseException:
        drop(connection)
        raise


async def unlock(connection: Connection, origin: str) -> None:
    """Let another sequencer have the log; pooled connections live on, and their locks with them."""
    await connection.execute(statement("tlog.unlock"), origin)


async def open_log(connection: Connection, origin: str) -> LogState:
    """Return the log of that origin, made empty if there was none."""
    await connection.execute(statement("tlog.open"), origin)
    return LogState(**dict(await one(connection, "tlog.state", origin)))


async def state(connection: Connection, origin: str) -> LogState | None:
    """Return the log of that origin, or None."""
    row = await connection.fetchrow(statement("tlog.state"), origin)
    return None if row is None else LogState(**dict(row))


async def states(connection: Connection) -> list[LogState]:
    """Return all logs, the oldest first."""
    return [LogState(**dict(row)) for row in await connection.fetch(statement("tlog.states"))]


def continued_by(log: LogState, logs: Sequence[LogState]) -> LogState | None:
    """Return the log that continues another, among all of a database, the oldest first; None if it is not closed."""
    return next((later for later in logs if later.id > log.id), None)


async def freeze(connection: Connection, log_id: int, reason: str) -> None:
    """Mark a log as never to be signed again; the first reason stays."""
    await connection.execute(statement("tlog.freeze"), log_id, reason)


async def pending(connection: Connection, limit: int, *, after: str = FIRST) -> list[PendingAttempt]:
    """Return attempts that wait for a leaf and are not parked, oldest id first, from the one after `after` on."""
    rows = await connection.fetch(statement("tlog.pending"), limit, after)
    return list(map(_pending, rows))


async def pending_count(connection: Connection, now: datetime) -> tuple[int, timedelta]:
    """Return how many attempts wait for a leaf, and how old the oldest one is; those that are parked aside."""
    row = await one(connection, "tlog.pending_count")
    oldest = row["oldest"]
    return max(row["count"], 0), timedelta() if oldest is None else now - timestamp(oldest)


async def park(connection: Connection, reasons: Mapping[str, str]) -> None:
    """Put attempts aside that cannot be put into the log, for a while."""
    await connection.execute(statement("tlog.park"), list(reasons), list(reasons.values()))


async def unpark(connection: Connection, attempt_ids: Sequence[str]) -> int:
    """Forget that attempts were put aside, and return how many of them were."""
    count: int = await connection.fetchval(statement("tlog.unpark"), list(attempt_ids))
    return count


async def forget_parked(connection: Connection) -> None:
    """Forget the parked attempts that need no leaf any more."""
    await connection.execute(statement("tlog.forget_parked"))


async def parked(connection: Connection, limit: int) -> list[Parked]:
    """Return what was put aside."""
    return [Parked(**dict(row)) for row in await connection.fetch(statement("tlog.parked"), limit)]


async def parked_count(connection: Connection) -> int:
    """Return how many attempts were put aside."""
    count: int = await connection.fetchval(statement("tlog.parked_count"))
    return count


async def parked_due(connection: Connection, limit: int, *, early: bool) -> list[PendingAttempt]:
    """Return what was put aside and is to be tried again; with `early` also what is not due yet."""
    rows = await connection.fetch(statement("tlog.parked_due"), limit, early)
    return list(map(_pending, rows))


async def chains(connection: Connection, log_id: int, endpoint_ids: Sequence[str]) -> dict[str, Chain]:
    """Return the last leaf of each endpoint that has one."""
    rows = await connection.fetch(statement("tlog.chains"), log_id, list(endpoint_ids))
    return {row["endpoint_id"]: Chain(**dict(row)) for row in rows}


async def append(
    connection: Connection,
    log: LogState,
    *,
    new_size: int,
    root: bytes,
    leaves: Sequence[NewLeaf],
    tiles: Sequence[TileRow],
    chains: Sequence[Chain],
) -> None:
    """Add leaves to a log in ONE transaction.

    Raises StaleTreeError if `log` is not its state, and ErasedMeanwhileError if an attempt waits for its leaf no more;
    nothing is changed then.
    """
    async with connection.transaction():
        moved = await connection.fetchval(statement("tlog.advance"), log.id, log.tree_size, new_size, root)
        if moved is None:
            found = await state(connection, log.origin)
            raise StaleTreeError(log.origin, log.tree_size, -1 if found is None else found.tree_size)
        await connection.copy_records_to_table(
            "leaves",
            columns=("log_id", *NewLeaf._fields),
            records=[(log.id, index, attempt_id, leaf) for index, attempt_id, leaf in leaves],
        )
        waiting = sum(1 for _, attempt_id, _ in leaves if attempt_id is not None)
        gone = waiting - await connection.fetchval(statement("tlog.take"), log.id, log.tree_size)
        if gone:
            raise ErasedMeanwhileError(gone)
        await put_tiles(connection, log.id, tiles)
        await connection.execute(
            statement("tlog.put_chains"),
            log.id,
            [chain.endpoint_id for chain in chains],
            [chain.sequence for chain in chains],
            [chain.leaf_hash for chain in chains],
        )


async def put_tiles(connection: Connection, log_id: int, tiles: Sequence[TileRow]) -> None:
    """Store tiles that are new or longer than before."""
    await connection.execute(
        statement("tlog.put_tiles"),
        log_id,
        [tile.level for tile in tiles],
        [tile.index for tile in tiles],
        [tile.hashes for tile in tiles],
    )


async def remove_tiles(connection: Connection, log_id: int, gone: Sequence[tuple[int, int]]) -> None:
    """Remove the tiles at (level, index), which are then made anew within the same transaction."""
    await connection.execute(
        statement("tlog.remove_tiles"), log_id, [level for level, _ in gone], [index for _, index in gone]
    )


async def remove_tiles_beyond(connection: Connection, log_id: int, size: int) -> int:
    """Remove the tiles that no tree of `size` leaves has, and return how many there were."""
    count: int = await connection.fetchval(statement("tlog.remove_tiles_beyond"), log_id, size)
    return count


async def unfreeze(connection: Connection, log_id: int) -> None:
    """Let a log be signed again, if all that is checked before a signature holds."""
    await connection.execute(statement("tlog.unfreeze"), log_id)


async def requeue(connection: Connection, log_id: int, first: int) -> None:
    """Have the attempts of the leaves from `first` on, which no head covers, wait for a leaf once more."""
    await connection.execute(statement("tlog.requeue"), log_id, first)


async def chain_ends(connection: Connection, log_id: int, after: str, limit: int) -> list[Chain]:
    """Return the last leaf of each endpoint, in the order of their ids."""
    return [Chain(**dict(row)) for row in await connection.fetch(statement("tlog.chain_ends"), log_id, after, limit)]


async def oldest_unpublished(connection: Connection, log_id: int, published: int) -> UUID | None:
    """Return the attempt of the first leaf that the head of `published` leaves does not cover, or None."""
    found: UUID | None = await connection.fetchval(statement("tlog.oldest_unpublished"), log_id, published)
    return found


async def tiles(
    connection: Connection, log_id: int, wanted: Sequence[tuple[int, int]]
) -> Mapping[tuple[int, int], bytes]:
    """Return the hashes of the tiles at (level, index) that exist."""
    rows = await connection.fetch(
        statement("tlog.tiles"), log_id, [level for level, _ in wanted], [index for _, index in wanted]
    )
    return {(row["level"], row["index"]): row["hashes"] for row in rows}


async def leaves(connection: Connection, log_id: int, first: int, count: int) -> list[LeafRow]:
    """Return the leaves [first, first + count) that exist, in order."""
    return [LeafRow(**dict(row)) for row in await connection.fetch(statement("tlog.leaves"), log_id, first, count)]


async def leaf_of_attempt(connection: Connection, attempt_id: UUID) -> tuple[int, LeafRow] | None:
    """Return the log id and the leaf of an attempt, or None while it has none."""
    row = await connection.fetchrow(statement("tlog.leaf_of_attempt"), attempt_id)
    if row is None:
        return None
    fields = dict(row)
    return fields.pop("log_id"), LeafRow(**fields)


async def publish(connection: Connection, head: HeadRow) -> None:
    """Store a signed head: from here on it is public."""
    await connection.execute(
        statement("tlog.publish"),
        head.log_id,
        head.timestamp_ms,
        head.tree_size,
        head.root,
        head.checkpoint,
        head.sth_signature,
        head.public_key,
    )


async def head_covering(connection: Connection, log_id: int, leaf_index: int) -> HeadRow | None:
    """Return the first head that was published over a leaf, or None while there is none."""
    row = await connection.fetchrow(statement("tlog.head_covering"), log_id, leaf_index)
    return None if row is None else HeadRow(**dict(row))


async def latest_head(connection: Connection, log_id: int | None = None) -> HeadRow | None:
    """Return the newest head of a log, or of the newest log that has one; None if nothing was published."""
    if log_id is None:
        row = await connection.fetchrow(statement("tlog.newest_head"))
    else:
        row = await connection.fetchrow(statement("tlog.latest_head"), log_id)
    return None if row is None else HeadRow(**dict(row))


async def heads(connection: Connection, log_id: int, limit: int) -> list[HeadRow]:
    """Return the newest heads of a log."""
    return [HeadRow(**dict(row)) for row in await connection.fetch(statement("tlog.heads"), log_id, limit)]


async def all_heads(connection: Connection, log_id: int, after_ms: int, limit: int) -> list[HeadRow]:
    """Return heads of a log, the oldest first, from the first one that is later than `after_ms` on."""
    rows = await connection.fetch(statement("tlog.all_heads"), log_id, after_ms, limit)
    return [HeadRow(**dict(row)) for row in rows]

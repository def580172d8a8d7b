"""How a log begins: empty where it is the first one of its database, and else as the continuation of the one before.

The attestor calls `begin` whenever it leads a log, and `kapsel log recover` for people, so nobody can forget it: the
first leaf of the new log is a statement with the old log's last checkpoint, by which auditors follow from the one to
the other. In the same transaction the old log is closed for good, for there must be no later checkpoint of it, and what
no head of it covers waits for a leaf once more.
"""

import os
from collections.abc import Sequence

from kapsel_store import log_keys, tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import HeadRow, LogState, NewLeaf, TileRow
from kapsel_tlog.errors import BusyLogError, NoContinuationError
from kapsel_tlog.tree import Tree, append
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.merkle import leaf_hash
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_verifier.statements import MAX_REASON, LogContinuation

SALT_BYTES = 32
BY_CONFIGURATION = "the configuration names another origin"


async def begin(
    connection: Connection, origin: str, now_ms: int, *, reason: str | None = None, checkpoint: str | None = None
) -> LogState:
    """Return the log of an origin, begun now if it is new; the caller holds its lock.

    `checkpoint` is a later one of the old log than this database has, as a receiver or a witness has kept it. Raises
    BusyLogError while another attestor leads the old log, NoContinuationError if the checkpoint is not of that log.
    """
    found = await tlog.state(connection, origin)
    if found is not None:
        return found
    older = await tlog.states(connection)
    held = list[LogState]()
    try:
        for log in older:
            if not await tlog.try_lock(connection, log.origin):
                raise BusyLogError(log.origin, origin)
            held.append(log)
        async with connection.transaction():
            new = await tlog.open_log(connection, origin)
            await _continue(connection, await tlog.states(connection), new, now_ms, reason, checkpoint)
        # A crash up to here has changed nothing; from here on the new log has its first leaf and the old one its last.
    finally:
        for log in held:
            await tlog.unlock(connection, log.origin)
    return await tlog.open_log(connection, origin)


async def _continue(
    connection: Connection,
    logs: Sequence[LogState],
    new: LogState,
    now_ms: int,
    reason: str | None,
    checkpoint: str | None,
) -> None:
    last: tuple[LogState, HeadRow] | None = None
    for log in logs:
        if log.id == new.id:
            continue
        head = await tlog.latest_head(connection, log.id)
        await tlog.freeze(connection, log.id, closed_by(new.origin))
        await tlog.requeue(connection, log.id, 0 if head is None else head.tree_size)
        await _end_keys(connection, log, max(now_ms, 0 if head is None else head.timestamp_ms))
        last = last if head is None else (log, head)
    if last is None:
        if checkpoint is not None:
            raise NoContinuationError("no log of this database has a signed head, so there is nothing to continue")
        return
    log, head = last
    if checkpoint is not None:
        await _require_later(connection, log, head, checkpoint)
    statement = LogContinuation(
        checkpoint=(checkpoint or head.checkpoint).encode(),
        origin=new.origin,
        reason=_printable(reason or log.frozen_reason or BY_CONFIGURATION),
        salt=os.urandom(SALT_BYTES),
        timestamp=now_ms,
    )
    await _append(connection, new, statement.encode())


async def _end_keys(connection: Connection, log: LogState, closed_ms: int) -> None:
    """Note that nobody signs a log any more; heads from before that are lost here stay good where others have them."""
    for key in await log_keys.history(connection, log.id):
        await log_keys.end(connection, log.id, key.public_key, closed_ms)


async def _append(connection: Connection, log: LogState, leaf: bytes) -> None:
    grown = append(Tree(), [leaf_hash(leaf)])
    await tlog.append(
        connection,
        log,
        new_size=1,
        root=grown.tree.root(),
        leaves=[NewLeaf(0, None, leaf)],
        tiles=[TileRow(level=tile.level, index=tile.number, hashes=held) for tile, held in grown.tiles.items()],
        chains=[],
    )


async def _require_later(connection: Connection, log: LogState, head: HeadRow, checkpoint: str) -> None:
    known = {key.public_key for key in await log_keys.history(connection, log.id)} | {head.public_key}
    try:
        signed = Note.parse(checkpoint)
        signed.verify([VerifierKey(log.origin, key) for key in known])
        size = Checkpoint.parse(signed.text).tree_size
    except VerificationError as error:
        raise NoContinuationError(f"the checkpoint is none of the log {log.origin}: {error}") from error
    if size < head.tree_size:
        raise NoContinuationError(
            f"the checkpoint has {size} leaves, and the last head in this database has {head.tree_size}: it is earlier"
        )


def closed_by(origin: str) -> str:
    """Return why a log that is continued by the one of this origin is never signed again."""
    return f"the log {origin} continues it"


def _printable(text: str) -> str:
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(character if character.isprintable() else " " for character in plain)[:MAX_REASON]

"""Signs and publishes heads: fenced, proven to continue what was signed, and never over a tree that does not hold.

The attestor's loop asks `due_in` and calls `publish`; it calls `inspect` before it appends anything, so that a restored
database is found out before a single attempt goes into it. Nothing here is remembered from one head to the next: the
fence, the log and its tiles are read anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol

from kapsel_attestor.errors import MismatchError, RefusedError
from kapsel_attestor.fence import Fence, Fenced
from kapsel_attestor.signers.signer import Signer, sign_by_all
from kapsel_store import log_keys, tlog
from kapsel_store.database import Connection
from kapsel_store.rows import LogRow
from kapsel_store.tlog import HeadRow, LogState
from kapsel_tlog import check, prover, tiles, tree
from kapsel_tlog.errors import DamagedTreeError
from kapsel_verifier.errors import ConsistencyError
from kapsel_verifier.merkle import verify_consistency
from kapsel_verifier.note import Checkpoint
from kapsel_verifier.tiles import WIDTH

MINIMUM = timedelta(seconds=1)  # witnesses and readers give a log a budget of heads
NEIGHBOURS = WIDTH  # leaves before those that a head adds
MOST_REHASHED = 2048  # leaves before a signature, some 10 ms; the rest of a long backlog is read back beside it

Prove = Callable[[int], Awaitable[list[bytes]]]  # the consistency proof from an older size to that of the head
Cosign = Callable[[str, Prove], Awaitable[Sequence[str]]]


class Cosigner(Protocol):
    """Those who put their names under a head before it is published."""

    async def cosign(self, row: LogRow, checkpoint: str, prove: Prove) -> Sequence[str]:
        """Return more signature lines for a signed note, each with its newline, within a deadline of its own.

        Raises UncosignedError if the log demands more of them than there are: then the head is not published.
        """


def due_in(log: LogRow, *, unpublished: int, age: timedelta | None) -> timedelta:
    """Return how long a head can wait, given the leaves it would add and the age of the last one, if there is one."""
    if age is None:
        return timedelta(0)
    if unpublished == 0:
        return log.idle_interval - age  # without a sign of life nobody can tell an idle log from a dead one
    return (MINIMUM if unpublished >= log.publish_pending else max(log.publish_interval, MINIMUM)) - age


async def publish(
    connection: Connection,
    log: LogState,
    guard: Fence,
    signers: Sequence[Signer],
    clock: Callable[[], int],
    cosign: Cosign | None = None,
) -> HeadRow:
    """Publish a head over the log as it is stored now, dated by `clock` in milliseconds but later than the one before.

    All `signers` sign it, and the first one is named as its key. Raises MismatchError if that must never be signed,
    RefusedError if a person has to act first, FenceMovedError if another attestor was faster, LateError if the fence,
    the signer or the witnesses do not do their part now.
    """
    fenced = await inspect(connection, log, guard)
    timestamp_ms = clock() if fenced is None else max(clock(), fenced.timestamp_ms + 1)
    new = Fenced(origin=log.origin, tree_size=log.tree_size, root=log.root, timestamp_ms=timestamp_ms)
    await asyncio.to_thread(guard.swap, fenced, new)
    # A crash here leaves the fence before the heads, by one that nobody has seen. The next head continues it.
    checkpoint = Checkpoint(origin=log.origin, tree_size=log.tree_size, root_hash=log.root)
    signed = await sign_by_all(signers, checkpoint, timestamp_ms)
    lines = [] if cosign is None else await cosign(signed.checkpoint, _prover(connection, log))
    head = HeadRow(
        log_id=log.id,
        timestamp_ms=timestamp_ms,
        tree_size=log.tree_size,
        root=log.root,
        checkpoint=signed.checkpoint + "".join(lines),
        sth_signature=signed.sth.signature,
        public_key=signers[0].key.public_key,
    )
    # A crash here loses a signature that witnesses at most have seen, over a tree that every later one continues.
    async with connection.transaction():
        await tlog.publish(connection, head)
        for signer in signers:
            await log_keys.begin(connection, log.id, signer.key.public_key, signer.key_id, timestamp_ms)
    return head


def _prover(connection: Connection, log: LogState) -> Prove:
    asked = asyncio.Lock()  # witnesses are asked side by side, and a connection takes one question at a time

    async def prove(old: int) -> list[bytes]:
        async with asked:
            return await prover.consistency(connection, log.id, old, log.tree_size)

    return prove


async def inspect(connection: Connection, log: LogState, guard: Fence) -> Fenced | None:
    """Return the fenced head after proving that the log holds together and continues it; None for a new log."""
    fenced = await asyncio.to_thread(guard.read)
    head = await tlog.latest_head(connection, log.id)
    if head is not None:
        _require_fence(fenced, head, log.origin, guard)
    try:
        await _require_continuation(connection, log, fenced)
        if head is not None:
            await check.require_head(connection, log, head)
        await check.rehash(connection, log.id, _first_to_rehash(log.tree_size, fenced), log.tree_size)
    except (DamagedTreeError, ConsistencyError) as error:
        raise MismatchError(f"the tree of {log.origin} cannot be signed: {error}") from error
    return fenced


def _require_fence(fenced: Fenced | None, head: HeadRow, origin: str, guard: Fence) -> None:
    """The fence is moved before a head is published, so it can never be behind one."""
    if fenced is not None and fenced.tree_size >= head.tree_size and fenced.timestamp_ms >= head.timestamp_ms:
        return
    content = Fenced(origin=origin, tree_size=head.tree_size, root=head.root, timestamp_ms=head.timestamp_ms)
    problem = "is missing" if fenced is None else "is older than the last published head"
    raise RefusedError(
        f"{guard} {problem}: put its newest copy back; if there is none and you are sure that no newer database exists "
        f"than this one, {guard.remedy(content)}"
    )


def _first_to_rehash(size: int, fenced: Fenced | None) -> int:
    """Return from which leaf on they are held against their hashes: those that a head adds, and those next to them."""
    begun = 0 if fenced is None else fenced.tree_size
    return max(min(begun, size) - NEIGHBOURS, size - MOST_REHASHED, 0)


async def _require_continuation(connection: Connection, log: LogState, fenced: Fenced | None) -> None:
    stored = await tlog.tiles(connection, log.id, tiles.edge(log.tree_size))
    if tree.load(log.tree_size, stored).root() != log.root:
        raise DamagedTreeError(f"its tiles do not fold to the root that was stored for {log.tree_size} leaves")
    if fenced is None:
        return
    if fenced.tree_size > log.tree_size:
        raise MismatchError(
            f"the log {log.origin} has {log.tree_size} leaves, but a head over {fenced.tree_size} was signed: this "
            f"database is older than what was signed, as a restored backup is"
        )
    proof = await prover.consistency(connection, log.id, fenced.tree_size, log.tree_size)
    verify_consistency(fenced.tree_size, log.tree_size, proof, fenced.root, log.root)

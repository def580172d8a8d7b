"""Compares a log with itself: what the attestor looks at before it signs, and what it reads back all the time.

A head is signed over the right edge alone, for the rest of a tree never changes; `refold` and `rebuild` find the rest
changed, and go through the log once, a run of tiles at a time. `rehash` holds single leaves against their hashes, and
`require_head` a stored head against its signatures and the tree.
"""

from collections.abc import AsyncIterator
from typing import Final

from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import HeadRow, LogState
from kapsel_tlog import prover
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tree import Tree, append
from kapsel_verifier import tiles
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_verifier.sth import find_sth
from kapsel_verifier.tiles import WIDTH, Tile

RUN: Final = 16 * WIDTH  # leaves in one query: 128 KiB of hashes, and about 5 ms of hashing


async def refold(connection: Connection, log_id: int, size: int) -> bytes:
    """Return the root over all stored leaf hashes; raise DamagedTreeError if a tile above does not follow from them."""
    tree = Tree()
    async for hashes in _runs(connection, log_id, size):
        tree = await _extend(connection, log_id, tree, hashes)
    return tree.root()


async def rebuild(connection: Connection, log_id: int, size: int) -> bytes:
    """Do the same from the leaves themselves; of an erased leaf its stored hash is all there is, and it is believed."""
    tree = Tree()
    async for hashes in _runs(connection, log_id, size):
        leaves = {row.leaf_index: row.leaf for row in await tlog.leaves(connection, log_id, tree.size, len(hashes))}
        for place in range(len(hashes)):
            if tree.size + place not in leaves:
                raise DamagedTreeError(f"leaf {tree.size + place} is missing")
            leaf = leaves[tree.size + place]
            if leaf is not None:
                hashes[place] = leaf_hash(leaf)
        tree = await _extend(connection, log_id, tree, hashes)
    return tree.root()


async def rehash(connection: Connection, log_id: int, first: int, size: int) -> None:
    """Hold the stored leaves [first, size) against the hashes in the tree; raise DamagedTreeError if one differs."""
    if first >= size:
        return
    hashes = await held_hashes(connection, log_id, first, size)
    rows = {row.leaf_index: row.leaf for row in await tlog.leaves(connection, log_id, first, size - first)}
    for index, held in enumerate(hashes, first):
        if index not in rows:
            raise DamagedTreeError(f"leaf {index} is missing")
        leaf = rows[index]
        # Of an erased leaf the hash is all there is.
        if leaf_hash(leaf) != held if leaf is not None else len(held) != HASH_SIZE:
            raise DamagedTreeError(f"leaf {index} is not what its hash in the tree says")


async def require_head(connection: Connection, log: LogState, head: HeadRow) -> None:
    """Hold a stored head against its signatures and the tree; raise DamagedTreeError if it was changed."""
    what = f"the head of {head.tree_size} leaves, dated {head.timestamp_ms},"
    try:
        signed = Note.parse(head.checkpoint)
        key = VerifierKey(log.origin, head.public_key)
        signed.verify([key])
        sth = find_sth(signed, [key])
        sth.verify(key)
        checkpoint = Checkpoint.parse(signed.text)
    except VerificationError as error:
        raise DamagedTreeError(f"{what} is not as it was signed: {error}") from error
    stored = (log.origin, head.tree_size, head.root, head.timestamp_ms, head.sth_signature)
    if stored != (checkpoint.origin, checkpoint.tree_size, checkpoint.root_hash, sth.timestamp_ms, sth.signature):
        raise DamagedTreeError(f"{what} says something else than its own checkpoint")
    if head.tree_size > log.tree_size:
        raise DamagedTreeError(f"{what} has more leaves than the log, which has {log.tree_size}")
    if await prover.root(connection, log.id, head.tree_size) != head.root:
        raise DamagedTreeError(f"{what} has another root than the tree")


async def _extend(connection: Connection, log_id: int, tree: Tree, hashes: list[bytes]) -> Tree:
    grown = append(tree, hashes)
    stored = await tlog.tiles(connection, log_id, list(grown.tiles))
    for tile, expected in grown.tiles.items():
        # A stored tile may reach further than this run, or the log may have grown since.
        if stored.get(tile, b"")[: len(expected)] != expected:
            raise DamagedTreeError(f"tile {tiles.path(tile)} does not follow from what is below it")
    return grown.tree


async def held_hashes(connection: Connection, log_id: int, first: int, end: int) -> list[bytes]:
    """Return the hashes of the leaves [first, end) as their tiles hold them; one of another length is not there."""
    run = [Tile(0, number) for number in range(first // WIDTH, -(-end // WIDTH))]
    stored = await tlog.tiles(connection, log_id, run)
    hashes = list[bytes]()
    for tile in run:
        held, begin = stored.get(tile, b""), tile.number * WIDTH
        places = range(max(first - begin, 0), min(end - begin, WIDTH))
        hashes += [held[place * HASH_SIZE : (place + 1) * HASH_SIZE] for place in places]
    return hashes


async def _runs(connection: Connection, log_id: int, size: int) -> AsyncIterator[list[bytes]]:
    for first in range(0, size, RUN):
        count = min(RUN, size - first)
        hashes = await held_hashes(connection, log_id, first, first + count)
        if any(len(held) != HASH_SIZE for held in hashes):
            start = tiles.path(Tile(0, first // WIDTH))
            raise DamagedTreeError(f"the tiles from {start} on do not hold {count} leaf hashes")
        yield hashes

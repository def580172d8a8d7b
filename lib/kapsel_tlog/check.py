"""Reads a whole log back and compares it with itself: the attestor at its start, tests, whoever suspects a disk.

A head is signed over the right edge alone, for the rest of a tree never changes; this finds the rest changed. Both
functions go through the log once, a run of tiles at a time, and give the loop back between the runs.
"""

from collections.abc import AsyncIterator
from typing import Final

from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tree import Tree, append
from kapsel_verifier import tiles
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash
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


async def _extend(connection: Connection, log_id: int, tree: Tree, hashes: list[bytes]) -> Tree:
    grown = append(tree, hashes)
    stored = await tlog.tiles(connection, log_id, list(grown.tiles))
    for tile, expected in grown.tiles.items():
        # A stored tile may reach further than this run, or the log may have grown since.
        if stored.get(tile, b"")[: len(expected)] != expected:
            raise DamagedTreeError(f"tile {tiles.path(tile)} does not follow from what is below it")
    return grown.tree


async def _runs(connection: Connection, log_id: int, size: int) -> AsyncIterator[list[bytes]]:
    for first in range(0, size, RUN):
        count = min(RUN, size - first)
        run = [Tile(0, number) for number in range(first // WIDTH, -(-(first + count) // WIDTH))]
        stored = await tlog.tiles(connection, log_id, run)
        hashes = b"".join(stored.get(tile, b"")[: tiles.width(tile, size) * HASH_SIZE] for tile in run)
        if len(hashes) != count * HASH_SIZE:
            raise DamagedTreeError(f"the tiles from {tiles.path(run[0])} on do not hold {count} leaf hashes")
        yield tiles.split(hashes)

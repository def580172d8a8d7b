"""The tree as its right edge: what an append needs to know, and all that it changes.

The sequencer loads it once, appends batches and gives the changed tiles to the store; the publisher loads it afresh
from the tiles before it signs. Pure: reading and writing tiles is the caller's. The unfinished tiles and the compact
range (the roots of the maximal perfect subtrees) are the same knowledge; the tiles are what is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kapsel_tlog import tiles
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tiles import Span, Stored
from kapsel_verifier.merkle import EMPTY_ROOT, HASH_SIZE, node_hash, root_from_leaves
from kapsel_verifier.tiles import HEIGHT, TILE_BYTES, Tile, path, split, width


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree of `size` leaves, known by the hashes of its unfinished tile of each level (empty where none is begun)."""

    size: int = 0
    edge: tuple[bytes, ...] = ()

    def root(self) -> bytes:
        """Return the RFC 6962 root hash."""
        stored: Stored = {tile: self.edge[tile.level] for tile in tiles.edge(self.size)}
        return fold([tiles.root_of_node(node, stored) for node in tiles.nodes(Span(0, self.size))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A tree after an append, and every tile that is new or longer than before, whole."""

    tree: Tree
    tiles: dict[Tile, bytes]


def load(size: int, stored: Stored) -> Tree:
    """Return the tree of `size` leaves from the stored tiles of its edge, which may have grown since."""
    edge = [b""] * ((size.bit_length() + HEIGHT - 1) // HEIGHT)
    for tile in tiles.edge(size):
        length = width(tile, size) * HASH_SIZE
        edge[tile.level] = stored.get(tile, b"")[:length]
        if len(edge[tile.level]) < length:
            raise DamagedTreeError(f"tile {path(tile)} is shorter than a tree of {size} leaves needs")
    return Tree(size=size, edge=tuple(edge))


def append(tree: Tree, leaf_hashes: Sequence[bytes]) -> Grown:
    """Append leaves; each full tile passes its root to the level above, so it costs one node hash a leaf."""
    changed: dict[Tile, bytes] = {}
    edge: list[bytes] = []
    arrived = b"".join(leaf_hashes)
    while arrived or len(edge) < len(tree.edge):
        level = len(edge)
        hashes = (tree.edge[level] if level < len(tree.edge) else b"") + arrived
        chunks = [hashes[i : i + TILE_BYTES] for i in range(0, len(hashes), TILE_BYTES)]
        if arrived:
            first = tree.size >> (HEIGHT * (level + 1))
            changed.update((Tile(level, first + n), chunk) for n, chunk in enumerate(chunks))
        edge.append(chunks.pop() if len(hashes) % TILE_BYTES else b"")
        arrived = b"".join(root_from_leaves(split(chunk)) for chunk in chunks)
    return Grown(tree=Tree(size=tree.size + len(leaf_hashes), edge=tuple(edge)), tiles=changed)


def fold(subtrees: Sequence[bytes]) -> bytes:
    """Return the root over neighbouring perfect subtrees, given left to right, each smaller than the one before it."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root

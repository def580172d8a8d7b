"""Where the hashes of a log live: which tiles hold the nodes that a root or a proof is folded from.

`tree` writes tiles, `prover` and `check` read them. What a tile is, and its path, is the verifier's `tiles`; this
module is the arithmetic between a node of the tree and its place in a tile, and touches no storage. No node is stored
twice: the levels between the rows of tiles are folded when they are needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kapsel_tlog.errors import DamagedTreeError
from kapsel_verifier.merkle import HASH_SIZE, root_from_leaves
from kapsel_verifier.tiles import HEIGHT, WIDTH, Tile, path, split, width

Stored = Mapping[tuple[int, int], bytes]  # the hashes of tiles, as the store gives them


class Node(NamedTuple):
    """The root of the perfect subtree over the leaves from number << level on, 1 << level of them."""

    level: int
    number: int


class Span(NamedTuple):
    """The subtree over the leaves begin <= i < end; not perfect if it ends at the right edge of a tree."""

    begin: int
    end: int


def edge(size: int) -> list[Tile]:
    """Return the unfinished tiles of a tree, the lowest level first: all that is needed for its root."""
    levels = range((size.bit_length() + HEIGHT - 1) // HEIGHT)
    tiles = (Tile(level, size >> (HEIGHT * (level + 1))) for level in levels)
    return [tile for tile in tiles if width(tile, size)]


def nodes(span: Span) -> Iterator[Node]:
    """Yield the largest perfect subtrees that make up a span, left to right."""
    begin, end = span
    while begin < end:
        room = (end - begin).bit_length() - 1
        level = min((begin & -begin).bit_length() - 1, room) if begin else room
        yield Node(level, begin >> level)
        begin += 1 << level


def holding(node: Node) -> tuple[Tile, int, int]:
    """Return the tile that a node is folded from, the first of its hashes there, and how many there are."""
    row, above = divmod(node.level, HEIGHT)
    first = node.number << above
    return Tile(row, first >> HEIGHT), first & (WIDTH - 1), 1 << above


def needed(spans: Iterable[Span]) -> set[Tile]:
    """Return the tiles that the roots of these spans are folded from."""
    return {holding(node)[0] for span in spans for node in nodes(span)}


def root_of_node(node: Node, tiles: Stored) -> bytes:
    """Fold one node out of its tile; raise DamagedTreeError if the tile does not reach so far."""
    tile, first, count = holding(node)
    end = (first + count) * HASH_SIZE
    stored = tiles.get(tile, b"")
    if len(stored) < end:
        raise DamagedTreeError(f"tile {path(tile)} has {len(stored)} bytes where at least {end} are needed")
    return root_from_leaves(split(stored[first * HASH_SIZE : end]))

"""Where the hashes of a log live: C2SP tlog-tiles, height 8.

`tree` writes tiles, `prover` and `check` read them, the console serves them by path. This module is the arithmetic
between the three ways to name a hash (node of the tree, place in a tile, path) and touches no storage. Tile `number`
of row `level` holds the nodes of tree level 8 * level from number * 256 on, 32 bytes each; rows above are the roots of
the full tiles below, so no node is stored twice and the levels between are folded when they are needed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from kapsel_tlog.errors import DamagedTreeError, TilePathError
from kapsel_verifier.merkle import HASH_SIZE, root_from_leaves

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
TILE_BYTES: Final = WIDTH * HASH_SIZE

_PATH: Final = re.compile(r"tile/(\d{1,2})/((?:x\d{3}/)*\d{3})(?:\.p/(\d{1,3}))?", re.ASCII)


class Tile(NamedTuple):
    """Which tile; as a plain tuple it is the key that the store takes."""

    level: int
    number: int


Stored = Mapping[tuple[int, int], bytes]  # the hashes of tiles, as the store gives them


class Node(NamedTuple):
    """The root of the perfect subtree over the leaves from number << level on, 1 << level of them."""

    level: int
    number: int


class Span(NamedTuple):
    """The subtree over the leaves begin <= i < end; not perfect if it ends at the right edge of a tree."""

    begin: int
    end: int


def width(tile: Tile, size: int) -> int:
    """Return how many hashes the tile has in a tree of `size` leaves: 0 if it is not there yet, 256 if it is full."""
    return min(max((size >> (HEIGHT * tile.level)) - (tile.number << HEIGHT), 0), WIDTH)


def edge(size: int) -> list[Tile]:
    """Return the unfinished tiles of a tree, the lowest level first: all that is needed for its root."""
    levels = range((size.bit_length() + HEIGHT - 1) // HEIGHT)
    tiles = (Tile(level, size >> (HEIGHT * (level + 1))) for level in levels)
    return [tile for tile in tiles if width(tile, size)]


def path(tile: Tile, hashes: int = WIDTH) -> str:
    """Return the path of the tile with so many hashes, as the read API of tlog-tiles spells it."""
    digits = str(tile.number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    number = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{tile.level}/{number}" + (f".p/{hashes}" if hashes < WIDTH else "")


def parse(text: str) -> tuple[Tile, int]:
    """Return the tile and the number of hashes that a path asks for; raise TilePathError unless it is canonical."""
    match = _PATH.fullmatch(text)
    if match is None:
        raise TilePathError(text)
    tile = Tile(int(match[1]), int(re.sub("[x/]", "", match[2])))
    hashes = int(match[3]) if match[3] else WIDTH
    # One spelling for each tile: no leading zeros or groups, no partial tile of 0 or 256 hashes, levels up to 63.
    if tile.level > 63 or not 0 < hashes <= WIDTH or path(tile, hashes) != text:
        raise TilePathError(text)
    return tile, hashes


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


def split(hashes: bytes) -> list[bytes]:
    """Return the single hashes of a tile."""
    return [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]

"""Tiles and entry bundles: how a log is read by anybody, C2SP tlog-tiles with height 8.

kapsel_tlog stores tiles, the console serves them and bundles by path, an auditor fetches both. A tile holds up to 256
hashes of one row: tile `number` of row `level` has the nodes of tree level 8 * level from number * 256 on, so rows
above 0 are the roots of the full tiles below. A bundle holds the leaves themselves below a tile of row 0. What was read
here is only well-formed: the hashes must still fold to a signed root, and the leaves have the hashes of the tile.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedTileError
from kapsel_verifier.leaf import MAX_LEAF_SIZE
from kapsel_verifier.merkle import HASH_SIZE

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT
TILE_BYTES: Final = WIDTH * HASH_SIZE
MAX_BUNDLE_SIZE: Final = WIDTH * (2 + MAX_LEAF_SIZE)  # bytes

_MAX_LEVEL: Final = 63
_PATH: Final = re.compile(r"tile/(\d{1,2}|entries)/((?:x\d{3}/)*\d{3})(?:\.p/(\d{1,3}))?", re.ASCII)
_MAX_PATH: Final = 128  # characters: the longest path of a tree that can be is half of that


class Tile(NamedTuple):
    """Which tile; as a plain tuple it is the key that the store takes."""

    level: int
    number: int


def width(tile: Tile, size: int) -> int:
    """Return how many hashes the tile has in a tree of `size` leaves: 0 if it is not there yet, 256 if it is full."""
    return min(max((size >> (HEIGHT * tile.level)) - (tile.number << HEIGHT), 0), WIDTH)


def path(tile: Tile, hashes: int = WIDTH) -> str:
    """Return the path of the tile with so many hashes, as the read API of tlog-tiles spells it."""
    return f"tile/{tile.level}/{_number(tile.number)}{_part(hashes)}"


def entries_path(number: int, entries: int = WIDTH) -> str:
    """Return the path of the bundle with so many leaves, from leaf number * 256 on."""
    return f"tile/entries/{_number(number)}{_part(entries)}"


def parse_path(text: str) -> tuple[Tile, int]:
    """Return the tile and the number of hashes that a path asks for.

    Raises MalformedTileError unless it is canonical: no leading zeros or groups, no part of 0 or 256, levels up to 63.
    """
    level, number, hashes = _parse(text)
    tile = Tile(int(level) if level != "entries" else -1, number)
    if not 0 <= tile.level <= _MAX_LEVEL or path(tile, hashes) != text:
        raise MalformedTileError(f"{strict.shown(text)} is not a tile path such as tile/0/x001/067 or tile/0/000.p/5")
    return tile, hashes


def parse_entries_path(text: str) -> tuple[int, int]:
    """Return the number of the bundle and of its leaves that a path asks for; raises MalformedTileError."""
    _, number, entries = _parse(text)
    if entries_path(number, entries) != text:
        raise MalformedTileError(f"{strict.shown(text)} is not a path such as tile/entries/000 or tile/entries/000.p/5")
    return number, entries


def split(hashes: bytes) -> list[bytes]:
    """Return the single hashes of a tile."""
    return [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]


def parse_tile(data: bytes, hashes: int) -> list[bytes]:
    """Read a tile that must hold exactly so many hashes; raises MalformedTileError."""
    if len(data) != hashes * HASH_SIZE:
        raise MalformedTileError(f"the tile has {len(data)} bytes, {hashes} hashes have {hashes * HASH_SIZE}")
    return split(data)


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return the bundle of these leaves, each behind its length in two bytes; raises MalformedTileError."""
    parts = []
    for entry in entries:
        if len(entry) > MAX_LEAF_SIZE:
            raise MalformedTileError(f"an entry of a bundle has {len(entry)} bytes, the most is {MAX_LEAF_SIZE}")
        parts += [len(entry).to_bytes(2, "big"), entry]
    if not 0 < len(parts) <= 2 * WIDTH:
        raise MalformedTileError(f"a bundle has 1 to {WIDTH} entries, not {len(parts) // 2}")
    return b"".join(parts)


def parse_bundle(data: bytes, entries: int) -> list[bytes]:
    """Read a bundle that must hold exactly so many leaves and nothing after them; raises MalformedTileError."""
    found: list[bytes] = []
    at = 0
    for number in range(entries):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):
            raise MalformedTileError(f"the bundle ends within entry {number} of {entries}")
        found.append(data[start:at])
    if at != len(data):
        raise MalformedTileError(f"the bundle has {len(data) - at} bytes after its {entries} entries")
    return found


def _parse(text: str) -> tuple[str, int, int]:
    match = _PATH.fullmatch(text) if len(text) <= _MAX_PATH else None
    hashes = int(match[3]) if match is not None and match[3] else WIDTH
    if match is None or not 0 < hashes <= WIDTH:
        raise MalformedTileError(f"{strict.shown(text)} is not a path of a tile or an entry bundle")
    return match[1], int(re.sub("[x/]", "", match[2])), hashes


def _number(number: int) -> str:
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])


def _part(hashes: int) -> str:
    return f".p/{hashes}" if hashes < WIDTH else ""

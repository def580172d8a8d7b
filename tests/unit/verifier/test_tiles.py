"""Tiles and entry bundles: one path each, and nothing but what a path asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier import tiles
from kapsel_verifier.errors import MalformedTileError, VerificationError
from kapsel_verifier.tiles import MAX_BUNDLE_SIZE, Tile

any_tile = st.builds(Tile, st.integers(0, 63), st.integers(0, 1 << 60))


@pytest.mark.parametrize(
    ("tile", "hashes", "path"),
    [
        (Tile(0, 0), 256, "tile/0/000"),
        (Tile(0, 67), 5, "tile/0/067.p/5"),
        (Tile(2, 999), 256, "tile/2/999"),
        (Tile(1, 1000), 255, "tile/1/x001/000.p/255"),
        (Tile(0, 1234067), 256, "tile/0/x001/x234/067"),
    ],
)
def test_path_is_spelled_as_the_specification_does(tile: Tile, hashes: int, path: str) -> None:
    assert tiles.path(tile, hashes) == path
    assert tiles.parse_path(path) == (tile, hashes)


@given(any_tile, st.integers(1, 256))
def test_path_round_trips(tile: Tile, hashes: int) -> None:
    assert tiles.parse_path(tiles.path(tile, hashes)) == (tile, hashes)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/05",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/٠٠٠",
        "tile/-1/000",
        "tile/entries/000",
        "tile/0/" + "x001/" * 10_000 + "000",
        "",
    ],
)
def test_path_with_a_second_spelling_is_refused(path: str) -> None:
    with pytest.raises(MalformedTileError, match="is not a"):
        tiles.parse_path(path)


@given(st.text(alphabet="tile/0123456789x.p-", max_size=30))
def test_whatever_parses_is_the_one_spelling(path: str) -> None:
    try:
        tile, hashes = tiles.parse_path(path)
    except MalformedTileError:
        return
    assert tiles.path(tile, hashes) == path


@given(st.integers(0, 1 << 40), st.integers(0, 5))
def test_widths_of_a_level_add_up_to_the_nodes_there(size: int, level: int) -> None:
    hashes = size >> (8 * level)
    full, rest = divmod(hashes, 256)
    assert tiles.width(Tile(level, full), size) == rest
    assert tiles.width(Tile(level, full + 1), size) == 0
    assert full == 0 or tiles.width(Tile(level, full - 1), size) == 256


@pytest.mark.parametrize(
    ("number", "entries", "path"),
    [(0, 256, "tile/entries/000"), (67, 5, "tile/entries/067.p/5"), (1234067, 1, "tile/entries/x001/x234/067.p/1")],
)
def test_path_of_a_bundle_has_no_level(number: int, entries: int, path: str) -> None:
    assert tiles.entries_path(number, entries) == path
    assert tiles.parse_entries_path(path) == (number, entries)


@pytest.mark.parametrize("path", ["tile/0/000", "tile/entries/0", "tile/entries/x000/001", "tile/entries/000.p/256"])
def test_path_of_no_bundle_is_refused(path: str) -> None:
    with pytest.raises(MalformedTileError):
        tiles.parse_entries_path(path)


@given(st.integers(1, 256))
def test_tile_has_as_many_hashes_as_were_asked_for(count: int) -> None:
    data = bytes(range(32)) * count
    assert tiles.parse_tile(data, count) == [bytes(range(32))] * count
    for wrong in (data[:-1], data + b"\0", data[:-32], data + bytes(32)):
        with pytest.raises(MalformedTileError):
            tiles.parse_tile(wrong, count)


bundles = st.lists(st.binary(max_size=40), min_size=1, max_size=256)


@given(bundles)
def test_bundle_comes_back_as_it_was_written(entries: list[bytes]) -> None:
    assert tiles.parse_bundle(tiles.encode_bundle(entries), len(entries)) == entries


@given(bundles)
def test_bundle_with_another_number_of_entries_or_bytes_is_refused(entries: list[bytes]) -> None:
    data, count = tiles.encode_bundle(entries), len(entries)
    for wrong, asked in ((data, count + 1), (data, count - 1), (data[:-1], count), (data + b"\0", count)):
        with pytest.raises(MalformedTileError):
            tiles.parse_bundle(wrong, asked)


@given(bundles, st.data())
def test_bundle_with_any_byte_changed_is_another_or_none(entries: list[bytes], data: st.DataObject) -> None:
    original = tiles.encode_bundle(entries)
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != original[where]))
    mutant = original[:where] + bytes([value]) + original[where + 1 :]
    try:
        read = tiles.parse_bundle(mutant, len(entries))
    except MalformedTileError:
        return
    assert read != entries
    assert tiles.encode_bundle(read) == mutant


@given(st.binary(max_size=80), st.integers(1, 256))
def test_arbitrary_bytes_are_a_bundle_in_one_way_or_refused(data: bytes, count: int) -> None:
    try:
        entries = tiles.parse_bundle(data, count)
    except VerificationError:
        return
    assert tiles.encode_bundle(entries) == data


def test_the_largest_bundle_has_the_largest_leaves() -> None:
    assert len(tiles.encode_bundle([bytes(65_535)] * 256)) == MAX_BUNDLE_SIZE
    for entries in ([bytes(65_536)], [b""] * 257, []):
        with pytest.raises(MalformedTileError):
            tiles.encode_bundle(entries)

"""Coordinates, widths and paths of tiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_tlog import tiles
from kapsel_tlog.errors import DamagedTreeError, TilePathError
from kapsel_tlog.tiles import Node, Span, Tile
from kapsel_verifier.merkle import leaf_hash, root_from_leaves

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
    assert tiles.parse(path) == (tile, hashes)


@given(any_tile, st.integers(1, 256))
def test_path_round_trips(tile: Tile, hashes: int) -> None:
    assert tiles.parse(tiles.path(tile, hashes)) == (tile, hashes)


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
        "",
    ],
)
def test_path_with_a_second_spelling_is_refused(path: str) -> None:
    with pytest.raises(TilePathError) as refused:
        tiles.parse(path)
    assert refused.value.path == path


@given(st.text(alphabet="tile/0123456789x.p-", max_size=30))
def test_whatever_parses_is_the_one_spelling(path: str) -> None:
    try:
        tile, hashes = tiles.parse(path)
    except TilePathError:
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
    ("size", "edge"),
    [
        (0, []),
        (1, [Tile(0, 0)]),
        (255, [Tile(0, 0)]),
        (256, [Tile(1, 0)]),
        (257, [Tile(0, 1), Tile(1, 0)]),
        (65536, [Tile(2, 0)]),
        (70000, [Tile(0, 273), Tile(1, 1), Tile(2, 0)]),
    ],
)
def test_edge_is_every_unfinished_tile(size: int, edge: list[Tile]) -> None:
    assert tiles.edge(size) == edge


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 20))
def test_nodes_of_a_right_edge_span_cover_it_once_in_falling_size(begin: int, length: int) -> None:
    begin &= ~((1 << length.bit_length()) - 1)  # a span of a tree begins at a multiple of its perfect size
    covered = begin
    levels = []
    for node in tiles.nodes(Span(begin, begin + length)):
        assert node.number << node.level == covered
        covered += 1 << node.level
        levels.append(node.level)
    assert covered == begin + length
    assert levels == sorted(set(levels), reverse=True)


@given(st.integers(0, 40), st.integers(0, 1 << 40))
def test_node_is_held_by_one_tile(level: int, number: int) -> None:
    tile, first, count = tiles.holding(Node(level, number))
    assert first + count <= 256
    leaves = 1 << (8 * tile.level)
    assert (tile.number * 256 + first) * leaves == number << level
    assert count * leaves == 1 << level


def test_node_is_folded_out_of_its_tile() -> None:
    hashes = [leaf_hash(b"%d" % i) for i in range(8)]
    stored = {Tile(0, 0): b"".join(hashes)}
    assert tiles.root_of_node(Node(2, 1), stored) == root_from_leaves(hashes[4:8])
    assert tiles.root_of_node(Node(0, 3), stored) == hashes[3]


def test_tile_that_is_too_short_is_said_to_be() -> None:
    with pytest.raises(DamagedTreeError, match=r"tile/0/000 has 64 bytes"):
        tiles.root_of_node(Node(2, 0), {Tile(0, 0): bytes(64)})

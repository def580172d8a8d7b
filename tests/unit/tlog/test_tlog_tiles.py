"""Which tiles the nodes of a tree are in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_tlog import tiles
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tiles import Node, Span
from kapsel_verifier.merkle import leaf_hash, root_from_leaves
from kapsel_verifier.tiles import Tile


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

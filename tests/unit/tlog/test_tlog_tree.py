"""Appending to a tree that is known by its right edge."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_tlog import tiles, tree
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tree import Tree
from kapsel_verifier.merkle import leaf_hash, root_from_leaves
from kapsel_verifier.tiles import Tile, width

LEAVES = [leaf_hash(i.to_bytes(4)) for i in range(70_000)]


def grow(sizes: list[int]) -> tuple[Tree, dict[Tile, bytes]]:
    grown, stored = Tree(), dict[Tile, bytes]()
    for size in sizes:
        step = tree.append(grown, LEAVES[grown.size : size])
        stored |= step.tiles
        grown = step.tree
    return grown, stored


def test_empty_tree_has_the_root_of_nothing() -> None:
    assert Tree().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 65535, 65536, 65537, 70_000])
def test_root_is_that_of_the_leaves(size: int) -> None:
    assert grow([size])[0].root() == root_from_leaves(LEAVES[:size])


def test_every_size_to_600_has_the_root_of_its_leaves() -> None:
    grown = Tree()
    for size in range(1, 601):
        grown = tree.append(grown, LEAVES[size - 1 : size]).tree
        assert grown.root() == root_from_leaves(LEAVES[:size])


@given(st.lists(st.integers(0, 3000), max_size=12).map(sorted))
def test_batches_do_not_matter(sizes: list[int]) -> None:
    by_batches, stored = grow(sizes)
    assert (by_batches, stored) == grow(sizes[-1:])


def test_append_of_nothing_changes_nothing() -> None:
    grown, _ = grow([300])
    assert tree.append(grown, []) == tree.Grown(tree=grown, tiles={})


def test_append_names_only_tiles_that_changed() -> None:
    grown, _ = grow([511])
    assert set(tree.append(grown, LEAVES[511:513]).tiles) == {Tile(0, 1), Tile(0, 2), Tile(1, 0)}


def test_tiles_are_as_wide_as_the_size_says() -> None:
    grown, stored = grow([1, 300, 65_600, 70_000])
    assert all(len(hashes) == 32 * width(tile, grown.size) for tile, hashes in stored.items())
    assert len(stored) == 274 + 2 + 1


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_tree_is_loaded_from_tiles_that_have_grown_since(size: int, more: int) -> None:
    _, stored = grow([size, size + more])
    assert tree.load(size, stored) == grow([size])[0]


def test_load_refuses_a_short_tile_and_an_absent_one() -> None:
    _, stored = grow([300])
    with pytest.raises(DamagedTreeError, match="tile/0/001"):
        tree.load(301, stored)
    with pytest.raises(DamagedTreeError, match="tile/1/000"):
        tree.load(300, {Tile(0, 1): stored[Tile(0, 1)]})


def test_flipped_bit_in_the_edge_changes_the_root() -> None:
    grown, stored = grow([1000])
    rng = random.Random(7)
    for tile in tiles.edge(1000):
        place, bit = rng.randrange(len(stored[tile])), 1 << rng.randrange(8)
        flipped = bytearray(stored[tile])
        flipped[place] ^= bit
        assert tree.load(1000, stored | {tile: bytes(flipped)}).root() != grown.root()

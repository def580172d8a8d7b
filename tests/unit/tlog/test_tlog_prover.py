"""Which hashes a proof is made of, against the definitions of RFC 6962 written down as they stand."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_tlog import prover, tiles, tree
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tiles import Span
from kapsel_tlog.tree import Tree
from kapsel_verifier.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from kapsel_verifier.tiles import Tile

LARGEST = 300
LEAVES = [leaf_hash(i.to_bytes(4)) for i in range(LARGEST)]
STORED = tree.append(Tree(), LEAVES).tiles


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


@cache
def mth(begin: int, end: int) -> bytes:
    if end - begin == 1:
        return LEAVES[begin]
    k = split(end - begin)
    return node_hash(mth(begin, begin + k), mth(begin + k, end))


def slow_path(m: int, begin: int, end: int) -> list[Span]:
    n = end - begin
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*slow_path(m, begin, begin + k), Span(begin + k, end)]
    return [*slow_path(m - k, begin + k, end), Span(begin, begin + k)]


def slow_subproof(m: int, begin: int, end: int, *, complete: bool) -> list[Span]:
    n = end - begin
    if m == n:
        return [] if complete else [Span(begin, end)]
    k = split(n)
    if m <= k:
        return [*slow_subproof(m, begin, begin + k, complete=complete), Span(begin + k, end)]
    return [*slow_subproof(m - k, begin + k, end, complete=False), Span(begin, begin + k)]


def test_every_inclusion_proof_to_300_is_the_one_defined() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            assert prover.inclusion_spans(index, size) == slow_path(index, 0, size), (index, size)


def test_every_consistency_proof_to_300_is_the_one_defined() -> None:
    for new in range(1, LARGEST + 1):
        for old in range(1, new + 1):
            assert prover.consistency_spans(old, new) == slow_subproof(old, 0, new, complete=True), (old, new)


def test_every_subtree_of_a_proof_to_300_has_its_root_folded_from_tiles() -> None:
    spans = {span for n in range(1, LARGEST + 1) for i in range(n) for span in prover.inclusion_spans(i, n)}
    assert len(spans) > 1000
    for span in spans:
        assert prover.resolve([span], STORED) == [mth(span.begin, span.end)], span


def test_nothing_is_proven_about_the_empty_tree() -> None:
    assert prover.consistency_spans(0, 0) == []
    assert prover.consistency_spans(0, 9) == []


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_leaf_outside_of_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="not in a tree"):
        prover.inclusion_spans(index, size)


@pytest.mark.parametrize(("old", "new"), [(3, 2), (-1, 2)])
def test_tree_is_not_consistent_with_a_smaller_one(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="cannot be the beginning"):
        prover.consistency_spans(old, new)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_proofs_in_trees_of_three_levels_pass_the_verifier(data: st.DataObject) -> None:
    size = data.draw(st.integers(65_000, 70_000))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root = LARGE.root_of(size)
    inclusion = prover.resolve(prover.inclusion_spans(index, size), LARGE.tiles)
    verify_inclusion(index, size, LARGE.leaves[index], inclusion, root)
    consistency = prover.resolve(prover.consistency_spans(old, size), LARGE.tiles)
    verify_consistency(old, size, consistency, LARGE.root_of(old), root)


@given(st.integers(1, 1 << 50), st.data())
def test_proof_of_any_log_needs_few_tiles(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    spans = prover.inclusion_spans(index, size)
    assert len(spans) <= (size - 1).bit_length()
    assert len(tiles.needed(spans)) <= 2 * -(-size.bit_length() // 8)


def test_missing_tile_is_damage_and_not_a_wrong_proof() -> None:
    spans = prover.inclusion_spans(299, 300)
    with pytest.raises(DamagedTreeError, match="tile/0/001"):
        prover.resolve(spans, {Tile(1, 0): STORED[Tile(1, 0)]})


class Large:
    """A tree of 70,000 leaves, and the roots of the sizes before."""

    def __init__(self) -> None:
        self.leaves = [leaf_hash(i.to_bytes(4)) for i in range(70_000)]
        self.tiles = tree.append(Tree(), self.leaves).tiles

    def root_of(self, size: int) -> bytes:
        return tree.load(size, self.tiles).root()


LARGE = Large()

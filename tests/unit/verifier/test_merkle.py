import hashlib
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_verifier import (
    VerificationError,
    leaf_hash,
    node_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)
from kapsel_verifier.errors import ConsistencyError, InclusionError
from kapsel_verifier.merkle import EMPTY_ROOT

HASHES = [leaf_hash(i.to_bytes(2, "big")) for i in range(300)]


class SlowTree:
    """RFC 6962 2.1 word for word: a recursive definition over ranges of leaves, remembered by range."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self.known: dict[tuple[int, int], bytes] = {}

    def root(self, first: int, last: int) -> bytes:
        if last - first == 1:
            return self.leaves[first]
        if (first, last) not in self.known:
            k = self.split(first, last)
            pair = self.root(first, first + k) + self.root(first + k, last)
            self.known[first, last] = hashlib.sha256(b"\x01" + pair).digest()
        return self.known[first, last]

    def path(self, index: int, first: int, last: int) -> list[bytes]:
        if last - first == 1:
            return []
        k = self.split(first, last)
        if index < first + k:
            return [*self.path(index, first, first + k), self.root(first + k, last)]
        return [*self.path(index, first + k, last), self.root(first, first + k)]

    def subproof(self, m: int, first: int, last: int, complete: bool) -> list[bytes]:
        if m == last - first:
            return [] if complete else [self.root(first, last)]
        k = self.split(first, last)
        if m <= k:
            return [*self.subproof(m, first, first + k, complete), self.root(first + k, last)]
        return [*self.subproof(m - k, first + k, last, False), self.root(first, first + k)]

    @staticmethod
    def split(first: int, last: int) -> int:
        k = 1
        while 2 * k < last - first:
            k *= 2
        return k


TREE = SlowTree(HASHES)
ROOTS = [EMPTY_ROOT, *(TREE.root(0, n) for n in range(1, len(HASHES) + 1))]
sizes = st.integers(1, len(HASHES))


def test_the_root_is_that_of_the_slow_definition_for_every_size() -> None:
    assert [root_from_leaves(HASHES[:n]) for n in range(len(HASHES) + 1)] == ROOTS


def test_every_inclusion_proof_of_the_slow_definition_holds() -> None:
    for n in range(1, len(HASHES) + 1):
        for i in range(n):
            verify_inclusion(i, n, HASHES[i], TREE.path(i, 0, n), ROOTS[n])


def test_every_consistency_proof_of_the_slow_definition_holds() -> None:
    for n in range(1, len(HASHES) + 1):
        for m in range(1, n + 1):
            verify_consistency(m, n, TREE.subproof(m, 0, n, True), ROOTS[m], ROOTS[n])


def test_an_inclusion_proof_holds_for_no_other_index() -> None:
    for n in range(1, 40):
        for i in range(n):
            path = TREE.path(i, 0, n)
            for other in set(range(n + 1)) - {i}:
                with pytest.raises(InclusionError):
                    verify_inclusion(other, n, HASHES[i], path, ROOTS[n])


def test_a_consistency_proof_holds_for_no_other_older_size() -> None:
    for n in range(2, 30):
        for m in range(1, n):
            proof = TREE.subproof(m, 0, n, True)
            for other in set(range(1, n + 1)) - {m}:
                with pytest.raises(ConsistencyError):
                    verify_consistency(other, n, proof, ROOTS[other], ROOTS[n])


@given(st.data(), sizes)
def test_an_inclusion_proof_with_any_bit_changed_is_refused(data: st.DataObject, n: int) -> None:
    i = data.draw(st.integers(0, n - 1))
    parts = [HASHES[i], ROOTS[n], *TREE.path(i, 0, n)]
    parts = changed(data, parts)
    with pytest.raises(InclusionError):
        verify_inclusion(i, n, parts[0], parts[2:], parts[1])


@given(st.data(), sizes)
def test_a_consistency_proof_with_any_bit_changed_is_refused(data: st.DataObject, n: int) -> None:
    m = data.draw(st.integers(1, n))
    parts = changed(data, [ROOTS[m], ROOTS[n], *TREE.subproof(m, 0, n, True)])
    with pytest.raises(ConsistencyError):
        verify_consistency(m, n, parts[2:], parts[0], parts[1])


@given(st.data(), sizes, st.sampled_from(["cut", "pad", "front"]))
def test_a_proof_of_another_length_is_refused(data: st.DataObject, n: int, how: str) -> None:
    i, m = data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n))
    inclusion = resized(TREE.path(i, 0, n), how)
    consistency = resized(TREE.subproof(m, 0, n, True), how)
    if inclusion is not None:
        with pytest.raises(InclusionError):
            verify_inclusion(i, n, HASHES[i], inclusion, ROOTS[n])
    if consistency is not None:
        with pytest.raises(ConsistencyError):
            verify_consistency(m, n, consistency, ROOTS[m], ROOTS[n])


@settings(max_examples=300)
@given(
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.lists(st.binary(max_size=33), max_size=80),
    st.binary(max_size=33),
    st.binary(max_size=33),
)
def test_arbitrary_input_is_refused_and_nothing_else_happens(
    a: int, b: int, proof: list[bytes], first: bytes, second: bytes
) -> None:
    with pytest.raises(VerificationError):
        verify_inclusion(a, b, first, proof, second)
    if not (a == b and first == second and len(first) == 32 and not proof):
        with pytest.raises(VerificationError):
            verify_consistency(a, b, proof, first, second)


def test_from_the_empty_tree_the_proof_is_empty_and_proves_nothing() -> None:
    verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)
    verify_consistency(0, 7, [], EMPTY_ROOT, ROOTS[7])


@pytest.mark.parametrize(
    ("old_size", "new_size", "proof", "old_root", "new_root"),
    [
        (0, 7, [ROOTS[1]], EMPTY_ROOT, ROOTS[7]),
        (0, 7, [], ROOTS[1], ROOTS[7]),
        (3, 3, [ROOTS[1]], ROOTS[3], ROOTS[3]),
        (3, 3, [], ROOTS[3], ROOTS[4]),
        (4, 3, [], ROOTS[4], ROOTS[3]),
        (-1, 3, [], ROOTS[4], ROOTS[3]),
        (4, 8, [], ROOTS[4], ROOTS[8]),
        (3, 8, [], ROOTS[3], ROOTS[8]),
    ],
)
def test_degenerate_consistency_is_refused(
    old_size: int, new_size: int, proof: list[bytes], old_root: bytes, new_root: bytes
) -> None:
    with pytest.raises(ConsistencyError):
        verify_consistency(old_size, new_size, proof, old_root, new_root)


def test_the_generator_of_the_vectors_agrees_with_the_slow_definition(log: ModuleType) -> None:
    for n in range(1, 33):
        assert all(log.path(i, HASHES[:n]) == TREE.path(i, 0, n) for i in range(n))
        assert all(log.consistency(m, HASHES[:n]) == TREE.subproof(m, 0, n, True) for m in range(1, n + 1))


def test_leaves_and_nodes_are_hashed_apart() -> None:
    assert leaf_hash(HASHES[0] + HASHES[1]) != node_hash(HASHES[0], HASHES[1])


def changed(data: st.DataObject, parts: list[bytes]) -> list[bytes]:
    where = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    value = int.from_bytes(parts[where], "big") ^ (1 << bit)
    return [*parts[:where], value.to_bytes(32, "big"), *parts[where + 1 :]]


def resized(proof: list[bytes], how: str) -> list[bytes] | None:
    if how == "cut":
        return proof[:-1] if proof else None
    return [*proof, HASHES[0]] if how == "pad" else [HASHES[0], *proof]

"""The Merkle tree of RFC 6962, section 2.1: hashes, and the two proofs an auditor checks.

The attestor and the prover hash with these functions and with no others. Whoever calls the checks decides where the
roots come from: a root is worth as much as the signature over it. Growing a tree and making proofs is kapsel_tlog's.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from kapsel_verifier.errors import ConsistencyError, InclusionError

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the 32-byte hash of a leaf: SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the 32-byte hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root_from_leaves(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root of the tree over all leaf hashes, left to right; the empty tree has the root SHA-256()."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        # A lone last node is promoted, never doubled: doubling would give two lists of leaves the same root.
        lone = level[-1:] if len(level) % 2 else []
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level += lone
    return level[0]


def verify_inclusion(
    leaf_index: int, tree_size: int, leaf_hash: bytes, proof: Sequence[bytes], root_hash: bytes
) -> None:
    """Check that the leaf is at `leaf_index`, from 0, in the tree of `tree_size` leaves with this root.

    `proof` holds the 32-byte sibling hashes from the leaf up (RFC 6962 2.1.1, checked as RFC 9162 2.1.3.2 has it).
    Raises InclusionError.
    """
    if not 0 <= leaf_index < tree_size:
        raise InclusionError(f"leaf {leaf_index} cannot be in a tree of {tree_size} leaves")
    _require_hashes([leaf_hash, root_hash, *proof], InclusionError)
    inner = (leaf_index ^ (tree_size - 1)).bit_length()
    border = (leaf_index >> inner).bit_count()
    if len(proof) != inner + border:
        # The exact length is what stops a path from being padded or cut to end at another level.
        raise InclusionError(f"the path has {len(proof)} hashes where {inner + border} are needed")
    node = leaf_hash
    for level, sibling in enumerate(proof):
        is_right_child = level >= inner or leaf_index >> level & 1
        node = node_hash(sibling, node) if is_right_child else node_hash(node, sibling)
    if node != root_hash:
        raise InclusionError("the path from the leaf does not lead to the root")


def verify_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the first `old_size` leaves of the newer tree are those of the older one.

    `proof` holds 32-byte hashes (RFC 6962 2.1.2, checked as RFC 9162 2.1.4.2 has it). From the empty tree, and between
    equal sizes, the proof is empty. Raises ConsistencyError.
    """
    if not 0 <= old_size <= new_size:
        raise ConsistencyError(f"a tree of {new_size} leaves cannot extend one of {old_size}")
    _require_hashes([old_root, new_root, *proof], ConsistencyError)
    if old_size in (0, new_size):
        _verify_trivial_consistency(old_size, new_size, proof, old_root, new_root)
        return
    # A perfect older tree is a node of the newer one, so its root is the first hash and is left out of the proof.
    hashes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not proof:
        raise ConsistencyError("the proof is empty although the sizes differ")
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ConsistencyError("the proof has more hashes than are needed")
        if first & 1 or first == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        first, last = first >> 1, last >> 1
    if last != 0:
        raise ConsistencyError("the proof has fewer hashes than are needed")
    if old != old_root:
        raise ConsistencyError("the proof does not lead to the older root")
    if new != new_root:
        raise ConsistencyError("the proof does not lead to the newer root")


def _verify_trivial_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    if proof:
        raise ConsistencyError("the proof has hashes where none are needed")
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ConsistencyError("the older tree is empty and its root is not the empty root")
    if old_size == new_size and old_root != new_root:
        raise ConsistencyError("two roots for one tree size")


def _require_hashes(hashes: Sequence[bytes], error: type[InclusionError | ConsistencyError]) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise error(f"every hash must have {HASH_SIZE} bytes")

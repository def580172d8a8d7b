"""Two implementations that share no code agree: tiles that grow, and the recursive definition of RFC 6962 2.1.

100,000 random trees take a few seconds because most are small: the number of trees falls off exponentially with their
size, seven leaves on average, so that each shape of a few leaves comes thousands of times; 200 trees more end around
one to three full tiles, and two around a full tile of tiles. Leaf hashes are drawn at random, trees grow in two random
batches, and of each tenth tree the proofs of a random leaf and of a random older size are compared too.
"""

import random
from collections.abc import Sequence
from hashlib import sha256

from kapsel_tlog import prover, tree
from kapsel_tlog.tree import Tree
from kapsel_verifier.merkle import verify_consistency, verify_inclusion

TREES = 100_000
SEED = 20_261_121
POOL = random.Random(SEED).randbytes(32 * 70_000)


def mth(leaves: Sequence[bytes]) -> bytes:
    """Return the root by the definition, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], complete: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if complete else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], complete), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def sizes(rng: random.Random) -> list[int]:
    """Return the sizes of all trees."""
    around = [rng.randint(65_400, 65_700) for _ in range(2)] + [rng.randint(240, 800) for _ in range(200)]
    reach = [min(int(rng.expovariate(0.14)) + 1, 200) for _ in range(TREES - len(around))]
    return around + reach


def leaves_at_random(rng: random.Random, size: int) -> list[bytes]:
    start = rng.randrange(len(POOL) // 32 - size)
    return [POOL[at : at + 32] for at in range(32 * start, 32 * (start + size), 32)]


def test_a_hundred_thousand_random_trees_have_the_roots_and_proofs_of_the_definition() -> None:
    rng = random.Random(SEED)
    for number, size in enumerate(sizes(rng)):
        leaves = leaves_at_random(rng, size)
        first = rng.randint(0, size)
        begun = tree.append(Tree(), leaves[:first])
        grown = tree.append(begun.tree, leaves[first:])
        root = mth(leaves)
        assert grown.tree.root() == root, (number, size, first)
        if number % 10 or number < 2:
            continue
        stored = begun.tiles | grown.tiles
        index, old = rng.randrange(size), rng.randint(1, size)
        inclusion = prover.resolve(prover.inclusion_spans(index, size), stored)
        consistency = prover.resolve(prover.consistency_spans(old, size), stored)
        assert inclusion == path(index, leaves), (number, size, index)
        assert consistency == subproof(old, leaves, True), (number, size, old)
        verify_inclusion(index, size, leaves[index], inclusion, root)
        verify_consistency(old, size, consistency, mth(leaves[:old]), root)

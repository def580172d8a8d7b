"""Proofs out of tiles: the console makes proof files with it, the publisher its consistency proof before it signs.

Which subtrees a proof names is pure arithmetic (RFC 6962, 2.1.1 and 2.1.2); all tiles they are folded from come in one
query, so a proof costs a few kilobytes and one round trip however large the log is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from kapsel_store import anchors, attempts, tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import HeadRow
from kapsel_tlog import tiles
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tiles import Span, Stored
from kapsel_tlog.tree import fold
from kapsel_verifier import proof
from kapsel_verifier.errors import InclusionError, MalformedTimestampError
from kapsel_verifier.merkle import leaf_hash, verify_inclusion
from kapsel_verifier.note import VerifierKey
from kapsel_verifier.proof import Proof


@dataclass(frozen=True, slots=True)
class Unknown:
    """No attempt has this id."""


@dataclass(frozen=True, slots=True)
class NotYetIntegrated:
    """The attempt waits for its leaf."""


@dataclass(frozen=True, slots=True)
class NotYetPublished:
    """The leaf waits for a signed head that covers it."""

    leaf_index: int


@dataclass(frozen=True, slots=True)
class NotYetAnchored:
    """No head over the leaf was given to calendars, or none of them has answered."""

    leaf_index: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What the leaf said was erased; its hash still stands in the log."""

    leaf_index: int
    leaf_hash: bytes


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Return the subtrees beside the way from leaf `index` to the root of a tree of `size`, leaf first."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    begin, end, spans = 0, size, list[Span]()
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(begin, middle))
            begin = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Return the subtrees that show a tree of `old` leaves to be the beginning of one of `new`; of nothing, none."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves cannot be the beginning of one of {new}")
    if old == 0:
        return []
    begin, end, spans = 0, new, list[Span]()
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(begin, middle))
            begin = middle
    if begin:  # else the old tree is itself a subtree of the new one, and its root is known to whoever checks
        spans.append(Span(begin, end))
    return spans[::-1]


def resolve(spans: Iterable[Span], stored: Stored) -> list[bytes]:
    """Return the root of each span; raise DamagedTreeError if a tile that it needs is missing or short."""
    return [fold([tiles.root_of_node(node, stored) for node in tiles.nodes(span)]) for span in spans]


async def proof_for_attempt(
    connection: Connection, attempt_id: UUID
) -> Proof | NotYetPublished | NotYetIntegrated | Erased | Unknown:
    """Return the proof of an attempt under the first head over it, so that it stays the same however the log grows.

    It brings the timestamp of that head if the head was anchored. Raises DamagedTreeError if what is stored makes no
    proof that holds.
    """
    found = await _leaf_of(connection, attempt_id)
    if not isinstance(found, _Leaf):
        return found
    head = await tlog.head_covering(connection, found.log_id, found.leaf_index)
    if head is None:
        return NotYetPublished(found.leaf_index)
    return await _proof(connection, found, head, await anchors.of_head(connection, head))


async def anchored_proof_for_attempt(
    connection: Connection, attempt_id: UUID
) -> Proof | NotYetAnchored | NotYetIntegrated | Erased | Unknown:
    """Return the proof of an attempt under the first head over it that a block dates, as calendars say.

    While there is none, it is under the first head over it that calendars have promised to date. Raises
    DamagedTreeError if what is stored makes no proof that holds.
    """
    found = await _leaf_of(connection, attempt_id)
    if not isinstance(found, _Leaf):
        return found
    anchored = await anchors.covering(connection, found.log_id, found.leaf_index)
    if anchored is None:
        return NotYetAnchored(found.leaf_index)
    return await _proof(connection, found, anchored.head, anchored.ots)


class _Leaf(NamedTuple):
    log_id: int
    leaf_index: int
    data: bytes


async def _leaf_of(connection: Connection, attempt_id: UUID) -> _Leaf | NotYetIntegrated | Erased | Unknown:
    found = await tlog.leaf_of_attempt(connection, attempt_id)
    if found is None:
        known = await attempts.get(connection, attempt_id)
        return Unknown() if known is None else NotYetIntegrated()
    log_id, row = found
    if row.leaf is None:
        (digest,) = await _prove(connection, log_id, [Span(row.leaf_index, row.leaf_index + 1)])
        return Erased(row.leaf_index, digest)
    return _Leaf(log_id, row.leaf_index, row.leaf)


async def _proof(connection: Connection, leaf: _Leaf, head: HeadRow, ots: bytes | None) -> Proof:
    index, size = leaf.leaf_index, head.tree_size
    path = await inclusion(connection, leaf.log_id, index, size)
    try:
        verify_inclusion(index, size, leaf_hash(leaf.data), path, head.root)
    except InclusionError as error:
        raise DamagedTreeError(f"leaf {index} has no proof under the head of {size} leaves") from error
    origin = head.checkpoint.partition("\n")[0]
    try:
        return proof.build(
            leaf=leaf.data,
            leaf_index=index,
            inclusion_proof=path,
            checkpoint=head.checkpoint,
            keys=[VerifierKey(origin, head.public_key)],
            ots=ots,
        )
    except MalformedTimestampError as error:
        raise DamagedTreeError(f"the stored timestamp of the head of {size} leaves is damaged: {error}") from error


async def inclusion(connection: Connection, log_id: int, index: int, size: int) -> list[bytes]:
    """Return the inclusion proof of a leaf in the tree of `size` leaves."""
    return await _prove(connection, log_id, inclusion_spans(index, size))


async def consistency(connection: Connection, log_id: int, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is the beginning of the tree of `new` leaves."""
    return await _prove(connection, log_id, consistency_spans(old, new))


async def root(connection: Connection, log_id: int, size: int) -> bytes:
    """Return the root over the first `size` leaves, out of the tiles as they are stored now."""
    (found,) = await _prove(connection, log_id, [Span(0, size)])
    return found


async def _prove(connection: Connection, log_id: int, spans: list[Span]) -> list[bytes]:
    stored = await tlog.tiles(connection, log_id, list(tiles.needed(spans)))
    return resolve(spans, stored)


def _split(leaves: int) -> int:
    return 1 << ((leaves - 1).bit_length() - 1)

"""Attempts as leaves: which values a leaf takes from an attempt, and how a batch of them hangs together.

Pure, called by the sequencer. An attempt that could not be encoded would stand before all later ones, so nothing that
the store can hold is left without a form: a text outside the leaf's profile is written in the profile's characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote
from uuid import UUID

from kapsel_store.ids import milliseconds
from kapsel_store.tlog import Chain, LeafRow, PendingAttempt
from kapsel_verifier.errors import MalformedLeafError
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import leaf_hash

SALT_BYTES = 32

_GRAPHIC = "".join(map(chr, range(0x21, 0x7F)))
_MAX_NAME = 253
_MAX_URL = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Leaves in the order of their indexes, the last of each endpoint, and what could not become a leaf."""

    leaves: list[LeafRow]
    hashes: list[bytes]
    chains: list[Chain]
    unencodable: dict[UUID, MalformedLeafError]


def batch(waiting: Sequence[PendingAttempt], chains: Mapping[UUID, Chain], first_index: int, entropy: bytes) -> Batch:
    """Encode attempts one after the other: each leaf names its endpoint's previous one by sequence and hash."""
    ends = {chain.endpoint_id: (chain.sequence, chain.leaf_hash) for chain in chains.values()}
    moved = dict[UUID, tuple[int, bytes]]()
    rows, hashes, failed = list[LeafRow](), list[bytes](), dict[UUID, MalformedLeafError]()
    for place, attempt in enumerate(waiting):
        sequence, previous = ends.get(attempt.endpoint_id, (-1, None))
        salt = entropy[place * SALT_BYTES : (place + 1) * SALT_BYTES]
        try:
            data = encode(attempt, sequence + 1, previous, salt)
        except MalformedLeafError as error:
            failed[attempt.id] = error
            continue
        digest = leaf_hash(data)
        rows.append(LeafRow(first_index + len(rows), attempt.id, data))
        hashes.append(digest)
        ends[attempt.endpoint_id] = moved[attempt.endpoint_id] = sequence + 1, digest
    changed = [Chain(endpoint_id=of, sequence=sequence, leaf_hash=digest) for of, (sequence, digest) in moved.items()]
    return Batch(leaves=rows, hashes=hashes, chains=changed, unencodable=failed)


def encode(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: bytes) -> bytes:
    """Return the bytes of leaf number `sequence` of its endpoint, which follows the leaf with the hash `previous`."""
    try:
        return _leaf(attempt, sequence, previous, salt).encode()
    except MalformedLeafError:
        return _leaf(in_profile(attempt), sequence, previous, salt).encode()


def _leaf(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: bytes) -> Leaf:
    return Leaf(
        attempt=attempt.number,
        delivery_attempt_id=str(attempt.id),
        delivery_id=str(attempt.delivery_id),
        destination=attempt.destination,
        endpoint=f"{attempt.namespace}/{attempt.name}",
        endpoint_id=str(attempt.endpoint_id),
        endpoint_sequence=sequence,
        endpoint_url=attempt.url,
        event_id=str(attempt.event_id),
        outcome=attempt.outcome,
        payload_commitment=attempt.payload_commitment,
        payload_hash=attempt.payload_hash,
        previous_leaf_hash=previous,
        reason=attempt.reason,
        response_digest=attempt.response_digest,
        response_status=attempt.response_status,
        salt=salt,
        signature_digest=attempt.signature_digest,
        timestamp=max(milliseconds(attempt.started_at), 0),
        acknowledgement_base=attempt.acknowledgement_base,
        acknowledgement_key=attempt.acknowledgement_key,
        acknowledgement_signature=attempt.acknowledgement_signature,
    )


def in_profile(attempt: PendingAttempt) -> PendingAttempt:
    """Return the attempt with texts that a leaf can hold: percent-encoded, and cut, with a hash, where too long."""
    return attempt._replace(
        namespace=_text(attempt.namespace, _MAX_NAME, "/ "),
        name=_text(attempt.name, _MAX_NAME, "/ "),
        destination=_text(attempt.destination, _MAX_NAME),
        url=_text(attempt.url, _MAX_URL),
        outcome=_text(attempt.outcome, _MAX_NAME),
        reason=attempt.reason and _text(attempt.reason, _MAX_NAME),
    )


def _text(value: str, limit: int, without: str = "") -> str:
    kept = (_GRAPHIC + " ").translate(str.maketrans("", "", without))
    escaped = quote(value, safe=kept, errors="replace") or "-"
    if len(escaped) <= limit:
        return escaped
    # Cut, but still committed to as a whole.
    end = "~sha256:" + sha256(value.encode(errors="replace")).hexdigest()
    return escaped[: limit - len(end)] + end

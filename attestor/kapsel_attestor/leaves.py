"""Attempts as leaves: which values a leaf takes from an attempt, and how a batch of them hangs together.

Pure, called by the sequencer. An attempt that could not be encoded would stand before all later ones, so nothing that
the store can hold is left without a form: a text outside the leaf's profile is written in the profile's characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    latest = dict(chains)
    rows, hashes, failed = list[LeafRow](), list[bytes](), dict[UUID, MalformedLeafError]()
    for place, pending in enumerate(waiting):
        attempt = pending.attempt
        try:
            salt = entropy[place * SALT_BYTES : (place + 1) * SALT_BYTES]
            data = encode(pending, latest.get(attempt.endpoint_id), salt)
        except MalformedLeafError as error:
            failed[attempt.id] = error
            continue
        hashes.append(leaf_hash(data))
        rows.append(LeafRow(leaf_index=first_index + len(rows), attempt_id=attempt.id, leaf=data))
        previous = latest.get(attempt.endpoint_id)
        latest[attempt.endpoint_id] = Chain(
            endpoint_id=attempt.endpoint_id,
            sequence=0 if previous is None else previous.sequence + 1,
            leaf_hash=hashes[-1],
        )
    changed = [chain for endpoint_id, chain in latest.items() if chains.get(endpoint_id) is not chain]
    return Batch(leaves=rows, hashes=hashes, chains=changed, unencodable=failed)


def encode(pending: PendingAttempt, previous: Chain | None, salt: bytes) -> bytes:
    """Return the bytes of the leaf that follows `previous` on its endpoint."""
    try:
        return _leaf(pending, previous, salt).encode()
    except MalformedLeafError:
        return _leaf(in_profile(pending), previous, salt).encode()


def _leaf(pending: PendingAttempt, previous: Chain | None, salt: bytes) -> Leaf:
    attempt = pending.attempt
    return Leaf(
        attempt=attempt.number,
        delivery_attempt_id=str(attempt.id),
        delivery_id=str(attempt.delivery_id),
        destination=pending.destination,
        endpoint=pending.endpoint,
        endpoint_id=str(attempt.endpoint_id),
        endpoint_sequence=0 if previous is None else previous.sequence + 1,
        endpoint_url=attempt.url,
        event_id=str(attempt.event_id),
        outcome=attempt.outcome,
        payload_commitment=attempt.payload_commitment,
        payload_hash=attempt.payload_hash,
        previous_leaf_hash=None if previous is None else previous.leaf_hash,
        reason=attempt.reason,
        response_digest=attempt.response_digest,
        response_status=attempt.response_status,
        salt=salt,
        signature_digest=attempt.signature_digest,
        timestamp=max(milliseconds(attempt.started_at), 0),
    )


def in_profile(pending: PendingAttempt) -> PendingAttempt:
    """Return the attempt with texts that a leaf can hold: percent-encoded, and cut, with a hash, where too long."""
    attempt = pending.attempt
    namespace, _, name = pending.endpoint.partition("/")
    return replace(
        pending,
        endpoint=f"{_text(namespace, _MAX_NAME, '/ ')}/{_text(name, _MAX_NAME, '/ ')}",
        destination=_text(pending.destination, _MAX_NAME),
        attempt=replace(
            attempt,
            url=_text(attempt.url, _MAX_URL),
            outcome=_text(attempt.outcome, _MAX_NAME),
            reason=attempt.reason and _text(attempt.reason, _MAX_NAME),
        ),
    )


def _text(value: str, limit: int, without: str = "") -> str:
    kept = (_GRAPHIC + " ").translate(str.maketrans("", "", without))
    escaped = quote(value, safe=kept, errors="replace") or "-"
    if len(escaped) <= limit:
        return escaped
    # Cut, but still committed to as a whole.
    end = "~sha256:" + sha256(value.encode(errors="replace")).hexdigest()
    return escaped[: limit - len(end)] + end

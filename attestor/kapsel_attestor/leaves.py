"""Attempts as leaves: which values a leaf takes from an attempt, and how a batch of them hangs together.

Pure, called by the sequencer. An attempt that could not be encoded would stand before all later ones, so nothing that
the store can hold is left without a form: a text outside the leaf's profile is written in the profile's characters.

There are two ways to the same bytes. Nearly all attempts go the short one, which knows what the store guarantees and
remembers texts that recur; whatever gives it pause goes the long one, over the verifier's `Leaf`, which is the judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from urllib.parse import quote
from uuid import UUID

from kapsel_store.ids import milliseconds
from kapsel_store.tlog import Chain, LeafRow, PendingAttempt
from kapsel_verifier.errors import MalformedLeafError
from kapsel_verifier.leaf import FORM, MAX_TEXT, MAX_URL, Leaf
from kapsel_verifier.merkle import leaf_hash

SALT_BYTES = 32

_GRAPHIC = "".join(map(chr, range(0x21, 0x7F)))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_HASH_LENGTHS = frozenset({4, 66})  # null, or 64 digits in quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Leaves in the order of their indexes, and the last of each endpoint."""

    leaves: list[LeafRow]
    hashes: list[bytes]
    chains: list[Chain]


def batch(waiting: Sequence[PendingAttempt], chains: Mapping[UUID, Chain], first_index: int, entropy: bytes) -> Batch:
    """Encode attempts one after the other: each leaf names its endpoint's previous one by sequence and hash.

    Raises MalformedLeafError for one that no leaf can hold.
    """
    ends = {chain.endpoint_id: (chain.sequence, chain.leaf_hash) for chain in chains.values()}
    moved = dict[UUID, tuple[int, bytes]]()
    rows, hashes = list[LeafRow](), list[bytes]()
    salts, place = entropy.hex(), 0
    for index, attempt in enumerate(waiting, first_index):
        endpoint_id = attempt.endpoint_id
        sequence, previous = ends.get(endpoint_id, (-1, None))
        salt = salts[place : place + 2 * SALT_BYTES]
        place += 2 * SALT_BYTES
        try:
            data = _short(attempt, sequence + 1, previous, salt)
        except MalformedLeafError:
            data = encode(attempt, sequence + 1, previous, bytes.fromhex(salt))
        digest = leaf_hash(data)
        rows.append(LeafRow(index, attempt.id, data))
        hashes.append(digest)
        ends[endpoint_id] = moved[endpoint_id] = sequence + 1, digest
    changed = [Chain(endpoint_id=of, sequence=sequence, leaf_hash=digest) for of, (sequence, digest) in moved.items()]
    return Batch(leaves=rows, hashes=hashes, chains=changed)


def encode(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: bytes) -> bytes:
    """Return the bytes of leaf number `sequence` of its endpoint, which follows the leaf with the hash `previous`."""
    try:
        return _leaf(attempt, sequence, previous, salt).encode()
    except MalformedLeafError:
        return _leaf(in_profile(attempt), sequence, previous, salt).encode()


def _short(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: str) -> bytes:
    """Return the same bytes, of an attempt that is as the store promises; raise MalformedLeafError if it is not.

    The previous leaf's hash is None for sequence 0 alone, and the salt is 64 digits: both are the caller's own.
    """
    (
        identifier, delivery_id, event_id, endpoint_id, namespace, name, destination, number, started_at, outcome,
        reason, url, payload_hash, commitment, signature, status, response, base, key, acknowledgement, sent,
    ) = attempt  # fmt: skip
    if base is not None or key is not None or acknowledgement is not None or len(payload_hash) != 32:
        raise MalformedLeafError("not the usual attempt")
    commitment_hex = "null" if commitment is None else f'"{commitment.hex()}"'
    signature_hex = "null" if signature is None else f'"{signature.hex()}"'
    response_hex = "null" if response is None else f'"{response.hex()}"'
    if not _HASH_LENGTHS.issuperset((len(commitment_hex), len(signature_hex), len(response_hex))):
        raise MalformedLeafError("not the usual attempt")
    if sent is not None and len(sent) != 32:
        raise MalformedLeafError("not the usual attempt")
    timestamp = (started_at - _EPOCH) // _MILLISECOND
    if timestamp < 0:
        raise MalformedLeafError("not the usual attempt")
    return (
        FORM
        % (
            "null", "null", "null", number, identifier, delivery_id, _quoted(destination), _endpoint(namespace, name),
            endpoint_id, sequence, _url(url), event_id, _quoted(outcome), commitment_hex, payload_hash.hex(),
            "null" if previous is None else f'"{previous.hex()}"', _quoted(reason) if reason else '""', response_hex,
            "null" if status is None else status, salt, "" if sent is None else f',"sent_hash":"{sent.hex()}"',
            signature_hex, timestamp,
        )
    ).encode("ascii")  # fmt: skip


@lru_cache(maxsize=4096)
def _endpoint(namespace: str, name: str) -> str:
    for part in (namespace, name):
        if not 0 < len(part) <= MAX_TEXT or not (part.isascii() and part.isprintable()) or "/" in part or " " in part:
            raise MalformedLeafError("not the usual endpoint")
    return encode_basestring_ascii(f"{namespace}/{name}")


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    if not 0 < len(text) <= MAX_TEXT or not (text.isascii() and text.isprintable()):
        raise MalformedLeafError("not the usual text")
    return encode_basestring_ascii(text)


@lru_cache(maxsize=4096)
def _url(text: str) -> str:
    if not 0 < len(text) <= MAX_URL or not (text.isascii() and text.isprintable()):
        raise MalformedLeafError("not the usual URL")
    return encode_basestring_ascii(text)


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
        sent_hash=attempt.sent_hash,
    )


def in_profile(attempt: PendingAttempt) -> PendingAttempt:
    """Return the attempt with texts that a leaf can hold: percent-encoded, and cut, with a hash, where too long."""
    return attempt._replace(
        namespace=_text(attempt.namespace, MAX_TEXT, "/ "),
        name=_text(attempt.name, MAX_TEXT, "/ "),
        destination=_text(attempt.destination, MAX_TEXT),
        url=_text(attempt.url, MAX_URL),
        outcome=_text(attempt.outcome, MAX_TEXT),
        reason=attempt.reason and _text(attempt.reason, MAX_TEXT),
    )


def _text(value: str, limit: int, without: str = "") -> str:
    kept = (_GRAPHIC + " ").translate(str.maketrans("", "", without))
    escaped = quote(value, safe=kept, errors="replace") or "-"
    if len(escaped) <= limit:
        return escaped
    # Cut, but still committed to as a whole.
    end = "~sha256:" + sha256(value.encode(errors="replace")).hexdigest()
    return escaped[: limit - len(end)] + end

"""Attempts as leaves: which values a leaf takes from an attempt, and how a batch of them hangs together.

Pure, called by the sequencer. An attempt that could not be encoded would stand before all later ones, so nothing that
the store can hold is left without a form: a text outside the leaf's profile is written in the profile's characters.

There are two ways to the same bytes. Nearly all attempts go the short one, which knows what the store guarantees and
remembers texts that recur; whatever gives it pause goes the long one, over the verifier's `Leaf`, which is the judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from urllib.parse import quote

from kapsel_store.ids import EPOCH, milliseconds
from kapsel_store.tlog import Chain, NewLeaf, PendingAttempt
from kapsel_verifier.errors import MalformedLeafError
from kapsel_verifier.leaf import FORM, MAX_TEXT, MAX_URL, Leaf
from kapsel_verifier.merkle import leaf_hash

SALT_BYTES = 32

_GRAPHIC = "".join(map(chr, range(0x21, 0x7F)))
_MILLISECOND = timedelta(milliseconds=1)
_DIGITS = 64  # of a hash in hex
_FIELD = "\0"  # in no text of a leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Leaves in the order of their indexes, and the last of each endpoint that has one among them."""

    leaves: list[NewLeaf]
    hashes: list[bytes]
    chains: dict[str, Chain]


def batch(waiting: Sequence[PendingAttempt], chains: Mapping[str, Chain], first_index: int, entropy: bytes) -> Batch:
    """Encode attempts one after the other: each leaf names its endpoint's previous one by sequence and hash.

    Raises MalformedLeafError for one that no leaf can hold.
    """
    moved = dict[str, tuple[int, bytes]]()
    rows, hashes = list[NewLeaf](), list[bytes]()
    salts, place = entropy.hex(), 0
    for index, attempt in enumerate(waiting, first_index):
        endpoint_id = attempt.endpoint_id
        sequence, previous = moved.get(endpoint_id) or _end(chains, endpoint_id)
        salt = salts[place : place + 2 * SALT_BYTES]
        place += 2 * SALT_BYTES
        try:
            data = _short(attempt, sequence + 1, previous, salt)
        except MalformedLeafError:
            data = encode(attempt, sequence + 1, previous, bytes.fromhex(salt))
        digest = leaf_hash(data)
        rows.append(NewLeaf(index, attempt.id, data))
        hashes.append(digest)
        moved[endpoint_id] = sequence + 1, digest
    changed = {of: Chain(endpoint_id=of, sequence=sequence, leaf_hash=last) for of, (sequence, last) in moved.items()}
    return Batch(leaves=rows, hashes=hashes, chains=changed)


def _end(chains: Mapping[str, Chain], endpoint_id: str) -> tuple[int, bytes | None]:
    chain = chains.get(endpoint_id)
    return (-1, None) if chain is None else (chain.sequence, chain.leaf_hash)


def encode(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: bytes) -> bytes:
    """Return the bytes of leaf number `sequence` of its endpoint, which follows the leaf with the hash `previous`."""
    try:
        return _leaf(attempt, sequence, previous, salt).encode()
    except MalformedLeafError:
        return _leaf(in_profile(attempt), sequence, previous, salt).encode()


def _short(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: str) -> bytes:
    """Return the same bytes, of an attempt that is as the store promises; raise MalformedLeafError if it is not.

    Hashes have the right length, for the store refuses others; what was erased has none. The previous leaf's is None
    for sequence 0 alone, and the salt is 64 digits: both are the caller's own.
    """
    (
        identifier, delivery_id, event_id, endpoint_id, namespace, name, destination, number, started_at, outcome,
        reason, url, payload_hash, commitment, signature, status, response, base, key, acknowledgement, sent,
    ) = attempt  # fmt: skip
    if base is not None or key is not None or acknowledgement is not None or len(payload_hash) != _DIGITS:
        raise MalformedLeafError("not the usual attempt")
    timestamp = (started_at - EPOCH) // _MILLISECOND
    if timestamp < 0:
        raise MalformedLeafError("not the usual attempt")
    a, b, c, d, e, f, g, h, i, j, k, m, n = _form(
        number, namespace, name, endpoint_id, destination, url, outcome, reason, status
    )
    commitment, response, signature = _or_null(commitment), _or_null(response), _or_null(signature)
    before = "null" if previous is None else f'"{previous.hex()}"'
    sent = "" if sent is None else f',"sent_hash":"{sent}"'
    # An f-string takes half the time of filling in a form by %.
    return (
        f"{a}{identifier}{b}{delivery_id}{c}{sequence}{d}{event_id}{e}{commitment}{f}{payload_hash}{g}{before}"
        f"{h}{response}{i}{salt}{j}{sent}{k}{signature}{m}{timestamp}{n}"
    ).encode("ascii")


@lru_cache(maxsize=8192)
def _form(
    number: int, namespace: str, name: str, endpoint_id: str, destination: str, url: str, outcome: str, reason: str,
    status: int | None,
) -> tuple[str, ...]:  # fmt: skip
    """Return the form of leaves in parts: what stands between the fields in which attempts that ended alike differ."""
    form = FORM % (
        "null", "null", "null", number, _FIELD, _FIELD, _quoted(destination), _endpoint(namespace, name), endpoint_id,
        _FIELD, _quoted(url, MAX_URL), _FIELD, _quoted(outcome), _FIELD, _FIELD, _FIELD,
        _quoted(reason) if reason else '""', _FIELD, "null" if status is None else status,
        _FIELD, _FIELD, _FIELD, _FIELD,
    )  # fmt: skip
    return tuple(form.split(_FIELD))


def _or_null(digits: str | None) -> str:
    return "null" if digits is None else f'"{digits}"'


def _endpoint(namespace: str, name: str) -> str:
    for part in (namespace, name):
        if "/" in part or " " in part:
            raise MalformedLeafError("not the usual endpoint")
    return f"{_quoted(namespace)[:-1]}/{_quoted(name)[1:]}"


def _quoted(text: str, limit: int = MAX_TEXT) -> str:
    if not 0 < len(text) <= limit or not (text.isascii() and text.isprintable()):
        raise MalformedLeafError("not the usual text")
    return encode_basestring_ascii(text)


def _leaf(attempt: PendingAttempt, sequence: int, previous: bytes | None, salt: bytes) -> Leaf:
    return Leaf(
        attempt=attempt.number,
        delivery_attempt_id=attempt.id,
        delivery_id=attempt.delivery_id,
        destination=attempt.destination,
        endpoint=f"{attempt.namespace}/{attempt.name}",
        endpoint_id=attempt.endpoint_id,
        endpoint_sequence=sequence,
        endpoint_url=attempt.url,
        event_id=attempt.event_id,
        outcome=attempt.outcome,
        payload_commitment=_bytes(attempt.payload_commitment),
        payload_hash=bytes.fromhex(attempt.payload_hash),
        previous_leaf_hash=previous,
        reason=attempt.reason,
        response_digest=_bytes(attempt.response_digest),
        response_status=attempt.response_status,
        salt=salt,
        signature_digest=_bytes(attempt.signature_digest),
        timestamp=max(milliseconds(attempt.started_at), 0),
        acknowledgement_base=attempt.acknowledgement_base,
        acknowledgement_key=attempt.acknowledgement_key,
        acknowledgement_signature=attempt.acknowledgement_signature,
        sent_hash=_bytes(attempt.sent_hash),
    )


def _bytes(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)


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

"""The leaf: what the log records of one delivery attempt, as the bytes that are hashed.

The attestor builds a Leaf from an attempt and stores `encode()` as it is; nobody ever serialises a stored leaf again.
The form is canonical JSON, a profile of RFC 8785: members in ASCII order, no white space, printable ASCII strings,
integers from 0 to 2^53 - 1, null, no floats. One leaf has one encoding, so `parse` accepts exactly what `encode` makes.
What the members promise, and what they do not, is in docs/proof-format.md.
"""

import json
import re
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedLeafError, TooLargeError

if TYPE_CHECKING:
    from kapsel_verifier.statements import Statement

LEAF_TYPE: Final = "kapsel.delivery-attempt"
LEAF_VERSION: Final = 1
MAX_LEAF_SIZE: Final = 65_535  # bytes: the length field of an entry bundle has 16 bits (C2SP tlog-tiles)

# The form of a leaf, for values that are JSON already. Written out, because the sequencer encodes tens of thousands a
# second, and the order is fixed anyway.
FORM: Final = (
    '{"acknowledgement_base":%s,"acknowledgement_key":%s,"acknowledgement_signature":%s,"attempt":%s'
    ',"delivery_attempt_id":"%s","delivery_id":"%s","destination":%s,"endpoint":%s,"endpoint_id":"%s"'
    ',"endpoint_sequence":%s,"endpoint_url":%s,"event_id":"%s","outcome":%s,"payload_commitment":%s,"payload_hash":"%s"'
    ',"previous_leaf_hash":%s,"reason":%s,"response_digest":%s,"response_status":%s,"salt":"%s"%s,"signature_digest":%s'
    f',"timestamp":%s,"type":"{LEAF_TYPE}","v":{LEAF_VERSION}}}'
)
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_ENDPOINT: Final = re.compile(r"[!-.0-~]{1,253}/[!-.0-~]{1,253}").fullmatch
MAX_TEXT: Final = 253  # characters, of every text but the URL
MAX_URL: Final = 8192
MAX_ACKNOWLEDGEMENT_BASE: Final = 8192  # bytes


class Leaf(NamedTuple):
    """One delivery attempt as the log records it; `encode` and `parse` hold it to the profile.

    Hashes, salts and digests are 32 bytes.
    """

    attempt: int  # which try of the delivery this is, from 1
    delivery_attempt_id: str  # UUID, lower case with hyphens, as all ids here
    delivery_id: str
    destination: str  # name of the destination within its endpoint, at most 253 characters
    endpoint: str  # "namespace/name"
    endpoint_id: str
    endpoint_sequence: int  # this endpoint's leaves in this log, counted from 0 without gaps
    endpoint_url: str  # where the try went, at most 8,192 characters
    event_id: str
    outcome: str  # what came of the try, such as "delivered"
    payload_commitment: bytes | None  # HMAC-SHA256(key = the event's salt, body as it came); None if that was erased
    payload_hash: bytes  # SHA-256 of the body as it came, which is what was sent unless there is a sent_hash
    previous_leaf_hash: bytes | None  # leaf hash of this endpoint's leaf before this one; None for sequence 0 alone
    reason: str  # stable code of why the outcome is what it is, may be empty
    response_digest: bytes | None  # SHA-256 of the whole response body that was read
    response_status: int | None  # HTTP status; None if there was no response
    salt: bytes  # random, so that the hash of this leaf cannot be guessed from a neighbour's proof
    signature_digest: bytes | None  # SHA-256 of the signature headers as sent; None if it was sent unsigned
    timestamp: int  # milliseconds since 1970-01-01 UTC: when the try began, by the deliverer's clock
    # What the destination signed when it answered, all three or none; whether it holds is `acknowledgement.check`'s.
    acknowledgement_base: bytes | None = None  # the signature base (RFC 9421), 1 to 8,192 bytes
    acknowledgement_key: bytes | None = None  # the Ed25519 key that the signature is said to be by, 32 bytes
    acknowledgement_signature: bytes | None = None  # 64 bytes
    sent_hash: bytes | None = None  # SHA-256 of the body as sent, if a transform made it; else there is no such member

    @property
    def sent(self) -> bytes:
        """The SHA-256 of the body as sent."""
        return self.payload_hash if self.sent_hash is None else self.sent_hash

    def encode(self) -> bytes:
        """Return the canonical bytes: the data that `merkle.leaf_hash` takes.

        Raises MalformedLeafError for a value outside the profile.
        """
        self._check_ids()
        self._check_texts()
        self._check_hashes()
        self._check_numbers()
        self._check_acknowledgement()
        return (
            FORM
            % (
                _base64_or_null(self.acknowledgement_base),
                _hex_or_null(self.acknowledgement_key),
                _hex_or_null(self.acknowledgement_signature),
                self.attempt,
                self.delivery_attempt_id,
                self.delivery_id,
                encode_basestring_ascii(self.destination),
                encode_basestring_ascii(self.endpoint),
                self.endpoint_id,
                self.endpoint_sequence,
                encode_basestring_ascii(self.endpoint_url),
                self.event_id,
                encode_basestring_ascii(self.outcome),
                _hex_or_null(self.payload_commitment),
                self.payload_hash.hex(),
                _hex_or_null(self.previous_leaf_hash),
                encode_basestring_ascii(self.reason),
                _hex_or_null(self.response_digest),
                "null" if self.response_status is None else self.response_status,
                self.salt.hex(),
                "" if self.sent_hash is None else f',"sent_hash":"{self.sent_hash.hex()}"',
                _hex_or_null(self.signature_digest),
                self.timestamp,
            )
        ).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> "Leaf":
        """Read exactly what `encode` makes; raises MalformedLeafError, or TooLargeError beyond 65,535 bytes."""
        if len(data) > MAX_LEAF_SIZE:
            raise TooLargeError("the leaf", MAX_LEAF_SIZE)
        members = strict.json_object(data, "the leaf", MalformedLeafError)
        strict.members(members, _TRANSFORMED if "sent_hash" in members else _MEMBERS, "the leaf", MalformedLeafError)
        if members["type"] != LEAF_TYPE or members["v"] != LEAF_VERSION:
            raise MalformedLeafError(f"the leaf is not of type {LEAF_TYPE}, version {LEAF_VERSION}")
        leaf = cls(**{name: _read(name, members[name]) for name in cls._fields if name in members})
        if leaf.encode() != data:
            raise MalformedLeafError("the leaf is not in canonical form")
        return leaf

    def members(self) -> dict[str, str | int | None]:
        """Return the members as they stand in the JSON."""
        members: dict[str, str | int | None] = json.loads(self.encode())
        return members

    def texts(self) -> dict[str, str]:
        """Return the members as text: integers in decimal, bytes in hex, `null` for none."""
        return {name: "null" if value is None else str(value) for name, value in self.members().items()}

    def _check_ids(self) -> None:
        for value in (self.delivery_attempt_id, self.delivery_id, self.endpoint_id, self.event_id):
            if not _UUID(value):
                raise MalformedLeafError("an id in the leaf is not a UUID in lower case")

    def _check_texts(self) -> None:
        if not _ENDPOINT(self.endpoint):
            raise MalformedLeafError("the leaf's endpoint is not namespace/name")
        texts = self.destination + self.endpoint_url + self.outcome + self.reason
        if not (texts.isascii() and texts.isprintable()):
            raise MalformedLeafError("a text in the leaf is not printable ASCII")
        if not self.destination or not self.endpoint_url or not self.outcome:
            raise MalformedLeafError("a text in the leaf is empty that may not be")
        if len(self.endpoint_url) > MAX_URL or max(map(len, (self.destination, self.outcome, self.reason))) > MAX_TEXT:
            raise MalformedLeafError("a text in the leaf is too long")

    def _check_hashes(self) -> None:
        for value in (self.payload_hash, self.salt):
            if len(value) != 32:
                raise MalformedLeafError("a hash or salt in the leaf does not have 32 bytes")
        for optional in (
            self.payload_commitment, self.previous_leaf_hash, self.response_digest, self.sent_hash,
            self.signature_digest,
        ):  # fmt: skip
            if optional is not None and len(optional) != 32:
                raise MalformedLeafError("a hash in the leaf does not have 32 bytes")
        if (self.previous_leaf_hash is None) != (self.endpoint_sequence == 0):
            raise MalformedLeafError("the leaf has a previous leaf hash for sequence 0, or none for a later one")

    def _check_numbers(self) -> None:
        if not 1 <= self.attempt <= strict.MAX_INTEGER:
            raise MalformedLeafError("the leaf's attempt is not counted from 1")
        if not 0 <= self.endpoint_sequence <= strict.MAX_INTEGER or not 0 <= self.timestamp <= strict.MAX_INTEGER:
            raise MalformedLeafError("a number in the leaf is not from 0 to 2^53 - 1")
        if self.response_status is not None and not 0 <= self.response_status <= 999:
            raise MalformedLeafError("the leaf's response status is not from 0 to 999")

    def _check_acknowledgement(self) -> None:
        base, key, signature = self.acknowledgement_base, self.acknowledgement_key, self.acknowledgement_signature
        if base is None and key is None and signature is None:
            return
        if base is None or key is None or signature is None:
            raise MalformedLeafError("the leaf has a part of an acknowledgement without the others")
        if not 0 < len(base) <= MAX_ACKNOWLEDGEMENT_BASE:
            raise MalformedLeafError("the leaf's acknowledgement_base does not have 1 to 8,192 bytes")
        if len(key) != 32 or len(signature) != 64:
            raise MalformedLeafError("the leaf's acknowledgement does not have a key of 32 and a signature of 64 bytes")


def parse_any(data: bytes) -> "Leaf | Statement":
    """Read a leaf of whatever type: an attempt, or what a log says about itself (`statements`).

    Raises MalformedLeafError, also for a type that is not known, or TooLargeError.
    """
    # In canonical form a quote within a text is escaped, so these bytes are nothing but the member.
    if f'"type":"{LEAF_TYPE}"'.encode() in data:
        return Leaf.parse(data)
    from kapsel_verifier import statements  # most programs never meet one, and the command line is in a hurry

    return statements.parse(data)


_INTEGERS: Final = frozenset({"attempt", "endpoint_sequence", "response_status", "timestamp"})
_SIZES: Final = {
    "acknowledgement_key": 32,
    "acknowledgement_signature": 64,
    "payload_commitment": 32,
    "payload_hash": 32,
    "previous_leaf_hash": 32,
    "response_digest": 32,
    "salt": 32,
    "sent_hash": 32,
    "signature_digest": 32,
}
_NULLABLE: Final = frozenset(
    {
        "acknowledgement_base", "acknowledgement_key", "acknowledgement_signature", "payload_commitment",
        "previous_leaf_hash", "response_digest", "response_status", "signature_digest",
    }
)  # fmt: skip
_TRANSFORMED: Final = (*Leaf._fields, "type", "v")
_MEMBERS: Final = tuple(name for name in _TRANSFORMED if name != "sent_hash")


def _read(name: str, value: object) -> Any:
    what = f"the leaf's {name}"
    if value is None and name in _NULLABLE:
        return None
    if name in _INTEGERS:
        return strict.integer(value, what, MalformedLeafError)
    if name in _SIZES:
        return strict.hexadecimal(value, _SIZES[name], what, MalformedLeafError)
    text = strict.string(value, what, MalformedLeafError)
    return strict.base64(text, what, MalformedLeafError) if name == "acknowledgement_base" else text


def _hex_or_null(value: bytes | None) -> str:
    return "null" if value is None else f'"{value.hex()}"'


def _base64_or_null(value: bytes | None) -> str:
    return "null" if value is None else f'"{strict.to_base64(value)}"'

"""Leaves in which a log says something about itself: that it continues another log, that a key succeeds another.

The attestor appends them beside the attempts, and `leaf.parse_any` reads a leaf of whatever type. They have the same
canonical form as an attempt's leaf (`leaf`), so their inclusion is proven in the same way. `parse` judges the form;
what a continuation is worth follows from the old log's head in it, and what a succession is worth from `verify`.
"""

import json
from typing import Any, Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import (
    MalformedKeyError,
    MalformedLeafError,
    MalformedNoteError,
    TooLargeError,
)
from kapsel_verifier.leaf import MAX_LEAF_SIZE
from kapsel_verifier.note import Checkpoint, Note, VerifierKey, is_key_name

CONTINUATION_TYPE: Final = "kapsel.log-continuation"
SUCCESSION_TYPE: Final = "kapsel.key-succession"
STATEMENT_VERSION: Final = 1
MAX_REASON: Final = 1024  # characters

Members = dict[str, str | int | None]


class LogContinuation(NamedTuple):
    """The first leaf of a log that continues another one: the old log ended here, by its own signed head."""

    checkpoint: bytes  # the old log's last signed note, verbatim
    origin: str  # the new log's origin
    reason: str  # why, for people; printable ASCII, 1 to 1,024 characters
    salt: bytes  # 32 random bytes, as in every leaf
    timestamp: int  # milliseconds since 1970-01-01 UTC, by the attestor's clock

    def encode(self) -> bytes:
        """Return the canonical bytes; raises MalformedLeafError, or TooLargeError beyond the size of a leaf."""
        self._check()
        return _encode(self.members())

    def members(self) -> Members:
        """Return the members as they stand in the JSON."""
        return {
            "checkpoint": strict.to_base64(self.checkpoint),
            "origin": self.origin,
            "reason": self.reason,
            "salt": self.salt.hex(),
            "timestamp": self.timestamp,
            "type": CONTINUATION_TYPE,
            "v": STATEMENT_VERSION,
        }

    def predecessor(self) -> Checkpoint:
        """Return the old log's head as it stands in the note, signatures unchecked (`heads.verify_head` does that)."""
        return Checkpoint.parse(Note.parse(self.checkpoint).text)

    def texts(self) -> dict[str, str]:
        """Return the members as text: integers in decimal, bytes in hex."""
        return {name: str(value) for name, value in self.members().items()}

    def _check(self) -> None:
        _check_frame(self.origin, self.salt, self.timestamp)
        if not 0 < len(self.reason) <= MAX_REASON or not _is_printable(self.reason):
            raise MalformedLeafError("the statement's reason is not 1 to 1,024 characters of printable ASCII")
        try:
            old = self.predecessor()
        except MalformedNoteError as error:
            raise MalformedLeafError(f"the statement's checkpoint is none: {error}") from None
        if old.origin == self.origin:
            raise MalformedLeafError("the statement continues a log under the same origin")


class KeySuccession(NamedTuple):
    """The announcement, within the log, of the key that will sign it; both keys have signed it."""

    not_before: int  # milliseconds since 1970-01-01 UTC: from when the successor signs heads
    origin: str  # the log's origin, also the name of both keys
    predecessor: VerifierKey
    predecessor_not_after: int  # until when the predecessor signs heads, not before `not_before`
    predecessor_signature: bytes  # 64 bytes, over `message()`
    salt: bytes
    successor: VerifierKey
    successor_signature: bytes  # 64 bytes, over `message()`
    timestamp: int

    def message(self) -> bytes:
        """Return the bytes that both keys sign: the canonical JSON without the two signatures.

        It begins with `{` and has no newline, so it is neither the text of a note nor the 48 bytes of a tree head.
        """
        members = self.members()
        del members["predecessor_signature"], members["successor_signature"]
        return _encode(members)

    def encode(self) -> bytes:
        """Return the canonical bytes; raises MalformedLeafError, or TooLargeError beyond the size of a leaf."""
        self._check()
        return _encode(self.members())

    def members(self) -> Members:
        """Return the members as they stand in the JSON."""
        return {
            "not_before": self.not_before,
            "origin": self.origin,
            "predecessor": self.predecessor.encode(),
            "predecessor_not_after": self.predecessor_not_after,
            "predecessor_signature": self.predecessor_signature.hex(),
            "salt": self.salt.hex(),
            "successor": self.successor.encode(),
            "successor_signature": self.successor_signature.hex(),
            "timestamp": self.timestamp,
            "type": SUCCESSION_TYPE,
            "v": STATEMENT_VERSION,
        }

    def verify(self) -> None:
        """Check both signatures; raises SignatureError. Whether the predecessor is trusted is the caller's to know."""
        message = self.message().decode("ascii")
        self.predecessor.verify(message, self.predecessor_signature)
        self.successor.verify(message, self.successor_signature)

    def texts(self) -> dict[str, str]:
        """Return the members as text: integers in decimal, bytes in hex."""
        return {name: str(value) for name, value in self.members().items()}

    def _check(self) -> None:
        _check_frame(self.origin, self.salt, self.timestamp)
        if self.predecessor.name != self.origin or self.successor.name != self.origin:
            raise MalformedLeafError("a key in the statement is not named after the origin")
        if self.predecessor.public_key == self.successor.public_key:
            raise MalformedLeafError("the statement has a key succeed itself")
        if not 0 <= self.not_before <= self.predecessor_not_after <= strict.MAX_INTEGER:
            raise MalformedLeafError("the statement leaves the log without a key between its two dates")
        if len(self.predecessor_signature) != 64 or len(self.successor_signature) != 64:
            raise MalformedLeafError("a signature in the statement does not have 64 bytes")


Statement = LogContinuation | KeySuccession

_WHAT: Final = "the statement"


def parse(data: bytes) -> Statement:
    """Read exactly what `encode` makes; raises MalformedLeafError, or TooLargeError beyond the size of a leaf."""
    if len(data) > MAX_LEAF_SIZE:
        raise TooLargeError("the leaf", MAX_LEAF_SIZE)
    members = strict.json_object(data, "the leaf", MalformedLeafError)
    try:
        statement = _read(members)
        canonical = statement.encode()
    except MalformedKeyError as error:
        raise MalformedLeafError(f"a key in the statement is none: {error}") from None
    if canonical != data:
        raise MalformedLeafError("the leaf is not in canonical form")
    return statement


def _read(members: dict[str, Any]) -> Statement:
    if strict.same(members.get("v"), STATEMENT_VERSION):
        if members.get("type") == CONTINUATION_TYPE:
            return _continuation(members)
        if members.get("type") == SUCCESSION_TYPE:
            return _succession(members)
    raise MalformedLeafError("the leaf is of no type and version that this verifier knows")


def _continuation(members: dict[str, Any]) -> LogContinuation:
    strict.members(members, (*LogContinuation._fields, "type", "v"), _WHAT, MalformedLeafError)
    checkpoint = _text(members, "checkpoint")
    return LogContinuation(
        checkpoint=strict.base64(checkpoint, "the statement's checkpoint", MalformedLeafError),
        origin=_text(members, "origin"),
        reason=_text(members, "reason"),
        salt=_bytes(members, "salt", 32),
        timestamp=_time(members, "timestamp"),
    )


def _succession(members: dict[str, Any]) -> KeySuccession:
    strict.members(members, (*KeySuccession._fields, "type", "v"), _WHAT, MalformedLeafError)
    return KeySuccession(
        not_before=_time(members, "not_before"),
        origin=_text(members, "origin"),
        predecessor=VerifierKey.parse(_text(members, "predecessor")),
        predecessor_not_after=_time(members, "predecessor_not_after"),
        predecessor_signature=_bytes(members, "predecessor_signature", 64),
        salt=_bytes(members, "salt", 32),
        successor=VerifierKey.parse(_text(members, "successor")),
        successor_signature=_bytes(members, "successor_signature", 64),
        timestamp=_time(members, "timestamp"),
    )


def _text(members: dict[str, Any], name: str) -> str:
    return strict.string(members[name], f"the statement's {name}", MalformedLeafError)


def _bytes(members: dict[str, Any], name: str, size: int) -> bytes:
    return strict.hexadecimal(members[name], size, f"the statement's {name}", MalformedLeafError)


def _time(members: dict[str, Any], name: str) -> int:
    return strict.integer(members[name], f"the statement's {name}", MalformedLeafError)


def _check_frame(origin: str, salt: bytes, timestamp: int) -> None:
    if not is_key_name(origin) or not _is_printable(origin):
        raise MalformedLeafError("the statement's origin is not the name of a key in printable ASCII")
    if len(salt) != 32:
        raise MalformedLeafError("the statement's salt does not have 32 bytes")
    if not 0 <= timestamp <= strict.MAX_INTEGER:
        raise MalformedLeafError("the statement's timestamp is not from 0 to 2^53 - 1")


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _encode(members: Members) -> bytes:
    # Printable ASCII alone stands in these texts, and of that `dumps` escapes what RFC 8785 does and nothing else.
    data = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_LEAF_SIZE:
        raise TooLargeError("the leaf", MAX_LEAF_SIZE)
    return data

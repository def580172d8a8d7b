"""The signed tree head in its small form: 48 bytes under one Ed25519 signature, beside the checkpoint of the same tree.

The attestor signs both forms with `sign_head`; the verifier demands both and that they agree. The small form dates the
head, which a checkpoint does not; the checkpoint names the log, which the small form does not. It travels in the note
as an extra signature line of type 0xff that other readers ignore. docs/adr/0001-two-forms-of-one-head.md says why.
"""

import struct
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from kapsel_verifier import ed25519, note, strict
from kapsel_verifier.errors import (
    HeadMismatchError,
    MalformedNoteError,
    MalformedProofError,
    UnsupportedProofError,
    UntrustedKeyError,
)
from kapsel_verifier.merkle import HASH_SIZE

STH_VERSION: Final = 1
ALGORITHM: Final = "Ed25519"
STH_LINE: Final = b"\xffkapsel-sth-v1"  # signature type 0xff, for types without a number, then a name nobody else has
SPKI: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: DER in front of a raw Ed25519 key
_MEMBERS: Final = (
    "version", "origin", "log_id", "key_id", "alg", "tree_size", "timestamp_ms", "root_hash", "signature",
)  # fmt: skip


def sth_message(tree_size: int, timestamp_ms: int, root_hash: bytes) -> bytes:
    """Return the 48 signed bytes: tree_size(8) || timestamp_ms(8) || root_hash(32), integers big-endian.

    Sizes end at 2^53 - 1, so the first byte is 0x00, which no signed note may contain: one key can sign both forms.
    """
    return struct.pack(">QQ32s", tree_size, timestamp_ms, root_hash)


def log_id(public_key: bytes) -> bytes:
    """Return SHA-256 of the key's SubjectPublicKeyInfo in DER (RFC 6962 3.2), 32 bytes."""
    return sha256(SPKI + public_key).digest()


class STHVerifier(NamedTuple):
    """Checks the extra signature line of one key: key id || timestamp_ms(8) || signature(64)."""

    key: note.VerifierKey

    @property
    def name(self) -> str:
        """The key name, the same as in the log's first line."""
        return self.key.name

    @property
    def key_id(self) -> bytes:
        """The 4-byte key id of this kind of line: other than that of the same key's signature over the text."""
        return note.key_id(self.key.name, STH_LINE + self.key.public_key)

    def verify(self, text: str, signature: bytes) -> None:
        """Check the line against the checkpoint it stands under; raises SignatureError or MalformedNoteError."""
        SignedTreeHead.from_line(self.key, note.Checkpoint.parse(text), signature).verify(self.key)


class SignedTreeHead(NamedTuple):
    """A tree head with its date and signature; `verify` says whether the signature holds."""

    origin: str
    log_id: bytes  # 32 bytes, see log_id()
    key_id: bytes  # 4 bytes: the key's id in the checkpoint's first signature line
    tree_size: int  # leaves
    timestamp_ms: int  # milliseconds since 1970-01-01 UTC, by the attestor's clock
    root_hash: bytes  # 32 bytes
    signature: bytes  # 64 bytes

    @classmethod
    def of(
        cls, key: note.VerifierKey, checkpoint: note.Checkpoint, timestamp_ms: int, signature: bytes
    ) -> "SignedTreeHead":
        """Put the small form together from the checkpoint, the date and a raw signature over `sth_message`."""
        return cls(
            origin=checkpoint.origin,
            log_id=log_id(key.public_key),
            key_id=key.key_id,
            tree_size=checkpoint.tree_size,
            timestamp_ms=timestamp_ms,
            root_hash=checkpoint.root_hash,
            signature=signature,
        )

    @classmethod
    def from_line(cls, key: note.VerifierKey, checkpoint: note.Checkpoint, blob: bytes) -> "SignedTreeHead":
        """Rebuild it from the extra line's bytes after the key id; raises MalformedNoteError."""
        if len(blob) != 8 + ed25519.SIGNATURE_SIZE:
            raise MalformedNoteError("the tree head line of the note does not have 72 bytes after the key id")
        timestamp_ms = int.from_bytes(blob[:8], "big")
        strict.integer(timestamp_ms, "the date in the tree head line of the note", MalformedNoteError)
        return cls.of(key, checkpoint, timestamp_ms, blob[8:])

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SignedTreeHead":
        """Read the JSON form; raises MalformedProofError or UnsupportedProofError."""
        what, error = "the tree head", MalformedProofError
        if not strict.same(value.get("version"), STH_VERSION) or not strict.same(value.get("alg"), ALGORITHM):
            raise UnsupportedProofError(f"the tree head is not of version {STH_VERSION} with {ALGORITHM}")
        strict.members(value, _MEMBERS, what, error)
        return cls(
            origin=strict.string(value["origin"], f"the origin of {what}", error),
            log_id=strict.hexadecimal(value["log_id"], 32, f"the log_id of {what}", error),
            key_id=strict.hexadecimal(value["key_id"], 4, f"the key_id of {what}", error),
            tree_size=strict.integer(value["tree_size"], f"the tree_size of {what}", error),
            timestamp_ms=strict.integer(value["timestamp_ms"], f"the timestamp_ms of {what}", error),
            root_hash=strict.hexadecimal(value["root_hash"], HASH_SIZE, f"the root_hash of {what}", error),
            signature=strict.hexadecimal(value["signature"], 64, f"the signature of {what}", error),
        )

    def to_json(self) -> dict[str, str | int]:
        """Return the JSON form as a dict, in the order in which it is written."""
        return {
            "version": STH_VERSION,
            "origin": self.origin,
            "log_id": self.log_id.hex(),
            "key_id": self.key_id.hex(),
            "alg": ALGORITHM,
            "tree_size": self.tree_size,
            "timestamp_ms": self.timestamp_ms,
            "root_hash": self.root_hash.hex(),
            "signature": self.signature.hex(),
        }

    def verify(self, key: note.VerifierKey) -> None:
        """Check the signature over the 48 bytes; raises SignatureError."""
        message = sth_message(self.tree_size, self.timestamp_ms, self.root_hash)
        ed25519.verify(
            key.public_key, message, self.signature, f"the signature of {strict.shown(key.name)} over the tree head"
        )

    def line(self, key: note.VerifierKey) -> str:
        """Return the extra signature line that carries this head in the note."""
        return note.signature_line(
            key.name, STHVerifier(key).key_id, self.timestamp_ms.to_bytes(8, "big") + self.signature
        )


class SignedHead(NamedTuple):
    """Both forms of one head: the signed note to publish, and the small form."""

    checkpoint: str
    sth: SignedTreeHead


def sign_head(
    checkpoint: note.Checkpoint, timestamp_ms: int, key: note.VerifierKey, sign: Callable[[bytes], bytes]
) -> SignedHead:
    """Sign both forms of a head with one key; `sign` takes a message and returns the raw 64-byte signature.

    What the signer returns is checked before it is used: a remote signer may have signed with another key version.
    Raises SignatureError, or HeadMismatchError if the key is not named after the origin.
    """
    if key.name != checkpoint.origin:
        raise HeadMismatchError(
            f"the key {strict.shown(key.name)} is not named after the origin {strict.shown(checkpoint.origin)}"
        )
    text = checkpoint.text()
    over_text = sign(text.encode())
    key.verify(text, over_text)
    message = sth_message(checkpoint.tree_size, timestamp_ms, checkpoint.root_hash)
    sth = SignedTreeHead.of(key, checkpoint, timestamp_ms, sign(message))
    sth.verify(key)
    return SignedHead(f"{text}\n{key.line(over_text)}{sth.line(key)}", sth)


def find_sth(signed: note.Note, keys: Iterable[note.VerifierKey]) -> SignedTreeHead:
    """Return the small form that one of these keys put into the note, signature unchecked.

    Raises UntrustedKeyError if there is none, MalformedNoteError if the note is no checkpoint.
    """
    checkpoint = note.Checkpoint.parse(signed.text)
    by_identity = {(key.name, STHVerifier(key).key_id): key for key in keys}
    for line in signed.signatures:
        key = by_identity.get((line.name, line.key_id))
        if key is not None:
            return SignedTreeHead.from_line(key, checkpoint, line.signature)
    raise UntrustedKeyError("the checkpoint carries no tree head line by a known key")

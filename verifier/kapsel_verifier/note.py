"""Signed notes, verifier keys and checkpoints as C2SP signed-note and tlog-checkpoint v1 have them.

The attestor builds checkpoints here, the verifier reads them. A note is text that somebody signed; until a signature by
a trusted key is checked its text says nothing. Kinds of signature differ in what they sign and how they look: a
`Verifier` is one kind under one key (`VerifierKey` for plain Ed25519 here, `sth.STHVerifier` beside it), so a witness's
cosignature will be one more class.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from kapsel_verifier import ed25519, strict
from kapsel_verifier.errors import (
    MalformedKeyError,
    MalformedNoteError,
    TooLargeError,
    UntrustedKeyError,
)
from kapsel_verifier.merkle import EMPTY_ROOT, HASH_SIZE

ED25519: Final = b"\x01"  # signature type: Ed25519 over the text of the note
MAX_NOTE_SIZE: Final = 262_144  # bytes
MAX_SIGNATURES: Final = 64  # C2SP demands 16 at least
_DASH: Final = "— "
_MAX_NAME: Final = 1024
_NO_KEY_NAME: Final = "a key name is empty or too long, or has a space, a plus sign or a control character"
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")  # what a JSON string or a command line may hold, and no UTF-8


class Verifier(Protocol):
    """One kind of signature under one key: what (name, key id) it answers for, and how it is checked."""

    @property
    def name(self) -> str:
        """The key name as it stands in signature lines."""

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that follow from name, signature type and public key."""

    def verify(self, text: str, signature: bytes) -> None:
        """Raise SignatureError unless the bytes after the key id are a signature over this text."""


def key_id(name: str, identity: bytes) -> bytes:
    """Return the 4-byte key id: SHA-256(name || 0x0A || type || public key)[:4]; `identity` is type || public key."""
    return sha256(name.encode() + b"\n" + identity).digest()[:4]


def signature_line(name: str, identifier: bytes, signature: bytes) -> str:
    """Return one signature line with its newline; `identifier` is the 4-byte key id. Raises MalformedKeyError."""
    if not is_key_name(name):
        raise MalformedKeyError(_NO_KEY_NAME)
    return f"{_DASH}{name} {strict.to_base64(identifier + signature)}\n"


class VerifierKey(NamedTuple):
    """An Ed25519 public key under the name it signs notes with; the name of a log's key is the log's origin."""

    name: str
    public_key: bytes  # 32 bytes

    @property
    def key_id(self) -> bytes:
        """The 4-byte key id of plain Ed25519 signatures by this key."""
        return key_id(self.name, ED25519 + self.public_key)

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read a vkey, `name+hex8(key id)+base64(0x01 || public key)`; raises MalformedKeyError."""
        # The name has no plus sign, base64 may have some.
        name, _, rest = text.partition("+")
        identifier, _, encoded = rest.partition("+")
        identity = strict.base64(encoded, "the key in the vkey", MalformedKeyError)
        if identity[:1] != ED25519 or len(identity) != 33:
            raise MalformedKeyError("the vkey is not of an Ed25519 key (type 01, 32 bytes)")
        if not is_key_name(name):
            raise MalformedKeyError(_NO_KEY_NAME)
        key = cls(name, identity[1:])
        if identifier != key.key_id.hex():
            raise MalformedKeyError("the key id in the vkey does not fit its name and key")
        return key

    def encode(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.key_id.hex()}+{strict.to_base64(ED25519 + self.public_key)}"

    def line(self, signature: bytes) -> str:
        """Return the signature line for a raw 64-byte signature over the text of a note."""
        return signature_line(self.name, self.key_id, signature)

    def verify(self, text: str, signature: bytes) -> None:
        """Check a raw 64-byte signature over the text; raises SignatureError."""
        what = f"the signature of {strict.shown(self.name)} over the checkpoint"
        ed25519.verify(self.public_key, text.encode(), signature, what)


class Signature(NamedTuple):
    """One signature line; `signature` is what follows the 4-byte key id."""

    name: str
    key_id: bytes
    signature: bytes


class Note(NamedTuple):
    """A note as it was read: its text, ending in a newline, is worth nothing before `verify`."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes | str) -> "Note":
        """Split a signed note into text and signatures; raises MalformedNoteError or TooLargeError."""
        try:
            encoded = data.encode("utf-8") if isinstance(data, str) else data
            if len(encoded) > MAX_NOTE_SIZE:
                raise TooLargeError("the signed note", MAX_NOTE_SIZE)
            whole = encoded.decode("utf-8")
        except UnicodeError:
            raise MalformedNoteError("the signed note is not UTF-8") from None
        if _CONTROL.search(whole):
            raise MalformedNoteError("the signed note has a control character other than newline")
        # The text may have blank lines of its own, signatures never do: the last one separates.
        text, separator, tail = whole.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise MalformedNoteError("the signed note is not text, a blank line and signature lines")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise MalformedNoteError(f"the signed note has more than {MAX_SIGNATURES} signatures")
        return cls(text + "\n", tuple(_parse_signature(line) for line in lines))

    def verify(self, verifiers: Iterable[Verifier]) -> tuple[Signature, ...]:
        """Return the signatures by these verifiers, all checked, in the order of the note.

        Unknown (name, key id) pairs are ignored, as C2SP demands. Raises SignatureError if one signature by a known key
        is wrong, whatever the others are, and UntrustedKeyError if there is none by a known key.
        """
        known = _by_identity(verifiers)
        trusted = []
        for signature in self.signatures:
            verifier = known.get((signature.name, signature.key_id))
            if verifier is not None:
                verifier.verify(self.text, signature.signature)
                trusted.append(signature)
        if not trusted:
            raise UntrustedKeyError("no trusted key has signed the checkpoint")
        return tuple(trusted)


class Checkpoint(NamedTuple):
    """The text of a log's signed note: the tree head, unsigned (C2SP tlog-checkpoint)."""

    origin: str
    tree_size: int  # leaves
    root_hash: bytes  # 32 bytes
    extensions: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise MalformedNoteError unless this can stand in a note and be read back."""
        strict.integer(self.tree_size, "the tree size of the checkpoint", MalformedNoteError)
        if len(self.root_hash) != HASH_SIZE:
            raise MalformedNoteError(f"the root hash of the checkpoint does not have {HASH_SIZE} bytes")
        if self.tree_size == 0 and self.root_hash != EMPTY_ROOT:
            raise MalformedNoteError("the checkpoint is of an empty tree and has another root than that")
        if any(not line or "\n" in line or _CONTROL.search(line) for line in (self.origin, *self.extensions)):
            raise MalformedNoteError("a line of the checkpoint is empty or has a control character")

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note, with its last newline; raises MalformedNoteError."""
        if not text.endswith("\n"):
            raise MalformedNoteError("the checkpoint does not end in a newline")
        lines = text[:-1].split("\n")
        if len(lines) < 3:
            raise MalformedNoteError("the checkpoint has fewer than three lines")
        checkpoint = cls(
            origin=lines[0],
            tree_size=strict.decimal(lines[1], "the tree size of the checkpoint", MalformedNoteError),
            root_hash=strict.base64(lines[2], "the root hash of the checkpoint", MalformedNoteError),
            extensions=tuple(lines[3:]),
        )
        checkpoint.check()
        return checkpoint

    def text(self) -> str:
        """Return the text to sign, ending in a newline; raises MalformedNoteError."""
        self.check()
        return "\n".join((self.origin, str(self.tree_size), strict.to_base64(self.root_hash), *self.extensions)) + "\n"


def is_key_name(name: str) -> bool:
    """Say whether this may stand as a key name in a signature line (C2SP signed-note), at most 1,024 characters."""
    if not 0 < len(name) <= _MAX_NAME or "+" in name or _CONTROL.search(name) or _SURROGATE.search(name):
        return False
    return not any(character.isspace() for character in name)


def _parse_signature(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise MalformedNoteError("a signature line of the note does not begin with an em dash and a space")
    name, _, encoded = line[len(_DASH) :].partition(" ")
    if not is_key_name(name):
        raise MalformedNoteError("a signature line of the note has no proper key name")
    blob = strict.base64(encoded, "a signature of the note", MalformedNoteError)
    if len(blob) < 5:
        raise MalformedNoteError("a signature of the note is too short")
    return Signature(name, blob[:4], blob[4:])


def _by_identity(verifiers: Iterable[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        identity = (verifier.name, verifier.key_id)
        if known.setdefault(identity, verifier) != verifier:
            raise MalformedKeyError(f"two trusted keys share the name {strict.shown(verifier.name)} and the key id")
    return known

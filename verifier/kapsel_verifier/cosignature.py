"""Cosignatures of witnesses, C2SP tlog-cosignature v1: what a third party signs to say "I saw this log grow".

A witness keeps the newest head of a log that it saw, and signs a newer one only if that extends it. So a cosignature
says that as of its date, by the witness's clock, no larger tree of this log was known to it, and that none of its
heads contradicts this one. Several witnesses together keep a log from showing two trees to two people.

`policy` holds the keys and says how many are enough; the attestor collects these lines, a witness makes them with
`cosign`. A kind of cosignature is known by the type byte in its key: version 1 with Ed25519 (0x04) is the one that
kapsel speaks, another (ML-DSA-44, 0x06) is one more entry in `_KINDS`.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from kapsel_verifier import ed25519, note, strict
from kapsel_verifier.errors import MalformedKeyError, MalformedNoteError

COSIGNATURE: Final = b"\x04"  # signature type: cosignature/v1, Ed25519 under a date
_KINDS: Final = {COSIGNATURE: ed25519.PUBLIC_KEY_SIZE}  # type byte -> length of the public key that follows it
_DATE_SIZE: Final = 8


class Cosignature(NamedTuple):
    """One checked cosignature: who, and when by the witness's clock."""

    name: str  # the witness's key name
    key_id: bytes  # 4 bytes
    timestamp: int  # seconds since 1970-01-01 UTC


class WitnessKey(NamedTuple):
    """The Ed25519 key of a witness under the name it cosigns with."""

    name: str
    public_key: bytes  # 32 bytes

    @property
    def key_id(self) -> bytes:
        """The 4-byte key id of cosignatures by this key: other than that of its plain signatures."""
        return note.key_id(self.name, COSIGNATURE + self.public_key)

    @classmethod
    def parse(cls, text: str) -> "WitnessKey":
        """Read a witness's vkey, `name+hex8(key id)+base64(0x04 || public key)`; raises MalformedKeyError."""
        # The name has no plus sign, base64 may have some.
        name, _, rest = text.partition("+")
        identifier, _, encoded = rest.partition("+")
        identity = strict.base64(encoded, "the key in the witness's vkey", MalformedKeyError)
        if _KINDS.get(identity[:1]) != len(identity) - 1:
            raise MalformedKeyError("the vkey is not of a witness's Ed25519 key (type 04, 32 bytes)")
        if not note.is_key_name(name):
            raise MalformedKeyError("the name of a witness's key is no key name")
        key = cls(name, identity[1:])
        if identifier != key.key_id.hex():
            raise MalformedKeyError("the key id in the witness's vkey does not fit its name and key")
        return key

    def encode(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.key_id.hex()}+{strict.to_base64(COSIGNATURE + self.public_key)}"

    def line(self, timestamp: int, signature: bytes) -> str:
        """Return the signature line, with its newline, for a raw signature over `message`; raises MalformedKeyError."""
        return note.signature_line(self.name, self.key_id, timestamp.to_bytes(_DATE_SIZE, "big") + signature)

    def verify(self, text: str, signature: bytes) -> None:
        """Check date and signature over the text of a checkpoint; raises SignatureError or MalformedNoteError."""
        timestamp, raw = _split(self.name, signature)
        what = f"the cosignature of {strict.shown(self.name)}"
        ed25519.verify(self.public_key, message(text, timestamp), raw, what)


def message(text: str, timestamp: int) -> bytes:
    """Return what a witness signs: the header, the date in seconds, and the whole text of the checkpoint.

    It begins with `c`. A kapsel log's small tree head begins with 0x00, and a note's text with its origin: so neither
    can be taken for a cosignature, unless a log calls itself `cosignature/v1`, which no witness should accept.
    """
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def cosign(text: str, timestamp: int, key: WitnessKey, sign: Callable[[bytes], bytes]) -> str:
    """Return a witness's signature line for this checkpoint text, checked before it is given away.

    Whoever calls this has made sure that the checkpoint extends the one signed before. Raises SignatureError.
    """
    strict.integer(timestamp, "the date of the cosignature", MalformedNoteError)
    signature = sign(message(text, timestamp))
    ed25519.verify(key.public_key, message(text, timestamp), signature, f"the cosignature of {strict.shown(key.name)}")
    return key.line(timestamp, signature)


def find(signed: note.Note, keys: Iterable[WitnessKey]) -> tuple[Cosignature, ...]:
    """Return the cosignatures by these witnesses, all checked, at most one each: its newest.

    Lines of others are ignored. Raises SignatureError or MalformedNoteError if one line by one of these keys is wrong,
    whatever the others are: a note with a forged line is not to be trusted in its other lines either.
    """
    known = {(key.name, key.key_id): key for key in keys}
    newest: dict[tuple[str, bytes], Cosignature] = {}
    for line in signed.signatures:
        identity = (line.name, line.key_id)
        key = known.get(identity)
        if key is None:
            continue
        key.verify(signed.text, line.signature)
        found = Cosignature(line.name, line.key_id, _split(line.name, line.signature)[0])
        if identity not in newest or found.timestamp > newest[identity].timestamp:
            newest[identity] = found
    return tuple(newest.values())


def _split(name: str, blob: bytes) -> tuple[int, bytes]:
    """Return date and raw signature of what follows the key id."""
    if len(blob) != _DATE_SIZE + ed25519.SIGNATURE_SIZE:
        raise MalformedNoteError(f"the cosignature of {strict.shown(name)} does not have 72 bytes after the key id")
    timestamp = int.from_bytes(blob[:_DATE_SIZE], "big")
    strict.integer(timestamp, f"the date in the cosignature of {strict.shown(name)}", MalformedNoteError)
    return timestamp, blob[_DATE_SIZE:]

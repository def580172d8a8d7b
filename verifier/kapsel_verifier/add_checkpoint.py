"""The one request that a log makes of a witness, C2SP tlog-witness: "here is a newer head, and why it extends yours".

    old <size>
    <base64 hash>, 0 to 63 lines: the consistency proof
    (blank line)
    <the signed note>

The attestor writes it, a witness reads it. The answer, signature lines, is read as part of the note they belong to.
"""

from typing import Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedNoteError, TooLargeError
from kapsel_verifier.merkle import HASH_SIZE

PATH: Final = "add-checkpoint"  # below the witness's submission prefix
SIZE_TYPE: Final = "text/x.tlog.size"  # content type of the body of a 409 that tells the size the witness knows
MAX_PROOF: Final = 63  # hashes
MAX_REQUEST_SIZE: Final = 262_144  # bytes
_OLD: Final = "old "


class AddCheckpoint(NamedTuple):
    """A head as it is put before a witness; nothing in it is checked yet."""

    old_size: int  # leaves of the head that the witness cosigned last, 0 if it cosigned none
    proof: tuple[bytes, ...]  # consistency proof from there, hashes of 32 bytes
    checkpoint: str  # the signed note, verbatim

    def encode(self) -> bytes:
        """Return the body of the request."""
        lines = [f"{_OLD}{self.old_size}", *map(strict.to_base64, self.proof), "", self.checkpoint]
        return "\n".join(lines).encode()

    @classmethod
    def parse(cls, data: bytes) -> "AddCheckpoint":
        """Read the body of a request; raises MalformedNoteError, or TooLargeError beyond 256 KiB."""
        if len(data) > MAX_REQUEST_SIZE:
            raise TooLargeError("the request", MAX_REQUEST_SIZE)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedNoteError("the request is not UTF-8") from None
        head, blank, checkpoint = text.partition("\n\n")
        first, *hashes = head.split("\n")
        if not blank or not first.startswith(_OLD):
            raise MalformedNoteError("the request is not an old size, a proof, a blank line and a checkpoint")
        if len(hashes) > MAX_PROOF:
            raise MalformedNoteError(f"the consistency proof has more than {MAX_PROOF} hashes")
        return cls(
            old_size=strict.decimal(first[len(_OLD) :], "the old size", MalformedNoteError),
            proof=tuple(_hash(line) for line in hashes),
            checkpoint=checkpoint,
        )


def parse_size(text: str) -> int:
    """Read the body of a 409, `<size>\\n`; raises MalformedNoteError."""
    if not text.endswith("\n"):
        raise MalformedNoteError("the size that the witness knows does not end in a newline")
    return strict.decimal(text[:-1], "the size that the witness knows", MalformedNoteError)


def _hash(line: str) -> bytes:
    value = strict.base64(line, "a hash of the consistency proof", MalformedNoteError)
    if len(value) != HASH_SIZE:
        raise MalformedNoteError(f"a hash of the consistency proof does not have {HASH_SIZE} bytes")
    return value

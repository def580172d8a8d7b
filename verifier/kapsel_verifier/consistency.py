"""The consistency proof as a file: that a tree of one size is the beginning of a tree of another.

The console answers with it at /api/v1/attestation/consistency-proof; an auditor who holds a head of the log gives it to
`verify`, which takes the roots from signed checkpoints. Between the two heads it proves that nothing was rewritten.
"""

import json
from typing import Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedProofError, TooLargeError
from kapsel_verifier.merkle import HASH_SIZE

MAX_CONSISTENCY_SIZE: Final = 65_536  # bytes
MAX_NODES: Final = 54  # hashes: one more than the longest inclusion proof has

_MEMBERS: Final = ("origin", "old_size", "new_size", "proof")
_WHAT: Final = "the consistency proof"


class ConsistencyProof(NamedTuple):
    """What the file says; `merkle.verify_consistency` judges the hashes."""

    origin: str  # the log
    old_size: int  # leaves
    new_size: int
    proof: tuple[bytes, ...]  # 32-byte hashes (RFC 6962 2.1.2)

    def to_json(self) -> dict[str, str | int | list[str]]:
        """Return the file as a JSON object."""
        return {
            "origin": self.origin,
            "old_size": self.old_size,
            "new_size": self.new_size,
            "proof": [node.hex() for node in self.proof],
        }

    def encode(self) -> bytes:
        """Return the file: ASCII, on one line without white space."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> "ConsistencyProof":
        """Read the file strictly; raises MalformedProofError or TooLargeError (beyond 64 KiB)."""
        if len(data) > MAX_CONSISTENCY_SIZE:
            raise TooLargeError(_WHAT, MAX_CONSISTENCY_SIZE)
        error = MalformedProofError
        value = strict.json_object(data, _WHAT, error)
        strict.members(value, _MEMBERS, _WHAT, error)
        nodes = value["proof"]
        if type(nodes) is not list or len(nodes) > MAX_NODES:
            raise error(f"the hashes of {_WHAT} are not a list of at most {MAX_NODES}")
        return cls(
            origin=strict.string(value["origin"], f"the origin of {_WHAT}", error),
            old_size=strict.integer(value["old_size"], f"the old_size of {_WHAT}", error),
            new_size=strict.integer(value["new_size"], f"the new_size of {_WHAT}", error),
            proof=tuple(
                strict.hexadecimal(node, HASH_SIZE, f"proof[{number}] of {_WHAT}", error)
                for number, node in enumerate(nodes)
            ),
        )

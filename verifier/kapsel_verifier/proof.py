"""The proof file, proof.json: all that is needed to check one delivery attempt offline, save the trusted key.

The prover builds a Proof, the console serves `encode()`, the verifier reads it with `parse` and judges it in `verify`.
Parsing checks the form and nothing else. A proof never brings its own key: a file with one is refused by name.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from kapsel_verifier import note, strict
from kapsel_verifier.errors import EmbeddedKeyError, MalformedProofError, TooLargeError, UnsupportedProofError
from kapsel_verifier.leaf import MAX_LEAF_SIZE
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.sth import SignedTreeHead, find_sth

PROOF_TYPE: Final = "kapsel.proof-of-delivery"
PROOF_VERSION: Final = 1
ASSURANCE: Final = "claimed"  # in the log, signed by its operator alone
MAX_PROOF_SIZE: Final = 1_048_576  # bytes
MAX_PATH: Final = 53  # hashes: no tree has more than 2^53 - 1 leaves

_MEMBERS: Final = ("type", "version", "assurance", "leaf_index", "leaf_b64", "inclusion_proof", "sth", "checkpoint")
_KEY_NAMES: Final = frozenset(
    {"public_key", "publickey", "pubkey", "key", "keys", "vkey", "vkeys", "jwk", "jwks", "certificate", "x5c", "x509"}
)


class Proof(NamedTuple):
    """What a proof file says; every value in it is a claim until `verify.verify_proof` has judged it."""

    leaf: bytes  # canonical bytes, as the log hashed them
    leaf_index: int  # from 0
    inclusion_proof: tuple[bytes, ...]  # 32-byte hashes from the leaf's sibling up
    sth: SignedTreeHead
    checkpoint: str  # the signed note, verbatim
    assurance: str = ASSURANCE

    def encode(self) -> bytes:
        """Return proof.json: ASCII, on one line without white space, so that every byte of it matters."""
        value = {
            "type": PROOF_TYPE,
            "version": PROOF_VERSION,
            "assurance": self.assurance,
            "leaf_index": self.leaf_index,
            "leaf_b64": strict.to_base64(self.leaf),
            "inclusion_proof": [node.hex() for node in self.inclusion_proof],
            "sth": self.sth.to_json(),
            "checkpoint": self.checkpoint,
        }
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def build(
    *,
    leaf: bytes,
    leaf_index: int,
    inclusion_proof: Sequence[bytes],
    checkpoint: str,
    keys: Iterable[note.VerifierKey],
) -> Proof:
    """Put a proof together; `checkpoint` is the signed note as published, `keys` those of the log, past and present.

    The small form of the head is taken from the note's extra line. Nothing is verified. Raises UntrustedKeyError if
    none of the keys has such a line in the note, MalformedNoteError if the note cannot be read.
    """
    return Proof(
        leaf=leaf,
        leaf_index=leaf_index,
        inclusion_proof=tuple(inclusion_proof),
        sth=find_sth(note.Note.parse(checkpoint), keys),
        checkpoint=checkpoint,
    )


def parse(data: bytes) -> Proof:
    """Read proof.json strictly; white space and order of members are free, all else has one spelling.

    Raises MalformedProofError, EmbeddedKeyError, UnsupportedProofError or TooLargeError (beyond 1 MiB).
    """
    if len(data) > MAX_PROOF_SIZE:
        raise TooLargeError("the proof", MAX_PROOF_SIZE)
    value = strict.json_object(data, "the proof", MalformedProofError)
    _refuse_keys(value)
    if not strict.same(value.get("type"), PROOF_TYPE):
        raise MalformedProofError(f"the file does not say that it is a {PROOF_TYPE}")
    if not strict.same(value.get("version"), PROOF_VERSION):
        raise UnsupportedProofError(f"the proof is not of version {PROOF_VERSION}")
    if not strict.same(value.get("assurance"), ASSURANCE):
        raise UnsupportedProofError(f"the proof claims another assurance than {ASSURANCE}")
    strict.members(value, _MEMBERS, "the proof", MalformedProofError)
    return Proof(
        leaf=_leaf(value["leaf_b64"]),
        leaf_index=strict.integer(value["leaf_index"], "the leaf_index of the proof", MalformedProofError),
        inclusion_proof=_path(value["inclusion_proof"]),
        sth=_sth(value["sth"]),
        checkpoint=strict.string(value["checkpoint"], "the checkpoint of the proof", MalformedProofError),
    )


def _refuse_keys(value: dict[str, Any]) -> None:
    for holder in (value, value.get("sth")):
        if isinstance(holder, dict) and not _KEY_NAMES.isdisjoint(name.lower() for name in holder):
            raise EmbeddedKeyError("the proof brings a public key")


def _leaf(value: object) -> bytes:
    text = strict.string(value, "the leaf_b64 of the proof", MalformedProofError)
    leaf = strict.base64(text, "the leaf_b64 of the proof", MalformedProofError)
    if len(leaf) > MAX_LEAF_SIZE:
        raise TooLargeError("the leaf", MAX_LEAF_SIZE)
    return leaf


def _path(value: object) -> tuple[bytes, ...]:
    if type(value) is not list or len(value) > MAX_PATH:
        raise MalformedProofError(f"the inclusion_proof is not a list of at most {MAX_PATH} hashes")
    return tuple(
        strict.hexadecimal(item, HASH_SIZE, "a hash of the inclusion_proof", MalformedProofError) for item in value
    )


def _sth(value: object) -> SignedTreeHead:
    if type(value) is not dict:
        raise MalformedProofError("the sth of the proof is not an object")
    return SignedTreeHead.from_json(value)

"""The proof file, proof.json: all that is needed to check one delivery attempt offline, save the trusted key.

The prover builds a Proof, the console serves `encode()`, the verifier reads it with `parse` and judges it in `verify`.
Parsing checks the form and nothing else. A proof never brings its own key: a file with one is refused by name.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from kapsel_verifier import claims, note, strict
from kapsel_verifier.claims import AcknowledgementClaim, CosignatureClaim
from kapsel_verifier.errors import EmbeddedKeyError, MalformedProofError, TooLargeError, UnsupportedProofError
from kapsel_verifier.leaf import MAX_LEAF_SIZE, parse_any
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.sth import SignedTreeHead, find_sth

PROOF_TYPE: Final = "kapsel.proof-of-delivery"
PROOF_VERSION: Final = 1
TLOG_PROOF: Final = "c2sp.org/tlog-proof@v1"  # the first line of the other form, which `tlog_proof` reads
MAX_PROOF_SIZE: Final = 1_048_576  # bytes
MAX_PATH: Final = 53  # hashes: no tree has more than 2^53 - 1 leaves

_MEMBERS: Final = (
    "type", "version", "assurance", "leaf_index", "leaf_b64", "inclusion_proof", "sth", "checkpoint", "cosignatures",
    "ots", "acknowledgement",
)  # fmt: skip
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
    cosignatures: tuple[CosignatureClaim, ...] = ()  # once more what the checkpoint has
    ots: bytes | None = None  # a .ots file over the bytes of the checkpoint
    acknowledgement: AcknowledgementClaim | None = None  # once more what the leaf has
    assurance: str = claims.CLAIMED  # the strongest level that all of this comes to

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
            "cosignatures": [
                {"name": one.name, "key_id": one.key_id.hex(), "timestamp_s": one.timestamp_s}
                for one in self.cosignatures
            ],
            "ots": None if self.ots is None else strict.to_base64(self.ots),
            "acknowledgement": None if self.acknowledgement is None else _acknowledgement_json(self.acknowledgement),
        }
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def build(
    *,
    leaf: bytes,
    leaf_index: int,
    inclusion_proof: Sequence[bytes],
    checkpoint: str,
    keys: Iterable[note.VerifierKey],
    ots: bytes | None = None,
) -> Proof:
    """Put a proof together; `checkpoint` is the signed note as published, `keys` those of the log, past and present.

    `ots` is a timestamp file over exactly this checkpoint. The small form of the head and the cosignatures are taken
    from the note, the acknowledgement from the leaf. Nothing is verified. Raises UntrustedKeyError if none of the keys
    has a tree head line in the note, MalformedNoteError, MalformedLeafError or MalformedTimestampError if a part cannot
    be read.
    """
    signed = note.Note.parse(checkpoint)
    sth = find_sth(signed, keys)
    cosignatures, acknowledgement = claims.cosignatures_in(signed), claims.acknowledgement_in(parse_any(leaf))
    return Proof(
        leaf=leaf,
        leaf_index=leaf_index,
        inclusion_proof=tuple(inclusion_proof),
        sth=sth,
        checkpoint=checkpoint,
        cosignatures=cosignatures,
        ots=ots,
        acknowledgement=acknowledgement,
        assurance=claims.strongest(cosignatures, ots, acknowledgement),
    )


def is_tlog_proof(data: bytes) -> bool:
    """Say whether a file begins as a `.tlog-proof` does."""
    return data.startswith(TLOG_PROOF.encode())


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
    if value.get("assurance") not in claims.LEVELS:
        raise UnsupportedProofError(f"the proof claims another assurance than {', '.join(claims.LEVELS)}")
    strict.members(value, _MEMBERS, "the proof", MalformedProofError)
    return Proof(
        leaf=_leaf(value["leaf_b64"]),
        leaf_index=strict.integer(value["leaf_index"], "the leaf_index of the proof", MalformedProofError),
        inclusion_proof=_path(value["inclusion_proof"]),
        sth=_sth(value["sth"]),
        checkpoint=strict.string(value["checkpoint"], "the checkpoint of the proof", MalformedProofError),
        cosignatures=_cosignatures(value["cosignatures"]),
        ots=None if value["ots"] is None else _base64(value["ots"], "the ots of the proof"),
        acknowledgement=_acknowledgement(value["acknowledgement"]),
        assurance=value["assurance"],
    )


def _refuse_keys(value: dict[str, Any]) -> None:
    # The one key that has a place in a proof is the destination's, as the leaf has it, and nobody trusts it for that.
    parts = [item for name, item in value.items() if name != "acknowledgement"]
    for holder in (value, *parts, *(inner for part in parts if type(part) is list for inner in part)):
        for name in holder if type(holder) is dict else ():
            if name.lower() in _KEY_NAMES:
                raise EmbeddedKeyError(f"the proof brings a key, in a member {strict.shown(name)}")


def _leaf(value: object) -> bytes:
    leaf = _base64(value, "the leaf_b64 of the proof")
    if len(leaf) > MAX_LEAF_SIZE:
        raise TooLargeError("the leaf", MAX_LEAF_SIZE)
    return leaf


def _base64(value: object, what: str) -> bytes:
    return strict.base64(strict.string(value, what, MalformedProofError), what, MalformedProofError)


def _path(value: object) -> tuple[bytes, ...]:
    if type(value) is not list or len(value) > MAX_PATH:
        raise MalformedProofError(f"the inclusion_proof is not a list of at most {MAX_PATH} hashes")
    return tuple(
        strict.hexadecimal(item, HASH_SIZE, f"inclusion_proof[{number}]", MalformedProofError)
        for number, item in enumerate(value)
    )


def _sth(value: object) -> SignedTreeHead:
    if type(value) is not dict:
        raise MalformedProofError("the sth of the proof is not an object")
    return SignedTreeHead.from_json(value)


def _cosignatures(value: object) -> tuple[CosignatureClaim, ...]:
    if type(value) is not list or len(value) > note.MAX_SIGNATURES:
        raise MalformedProofError(f"the cosignatures are not a list of at most {note.MAX_SIGNATURES}")
    return tuple(_cosignature(item, f"cosignatures[{number}]") for number, item in enumerate(value))


def _cosignature(value: object, what: str) -> CosignatureClaim:
    error = MalformedProofError
    if type(value) is not dict:
        raise error(f"{what} is not an object")
    strict.members(value, CosignatureClaim._fields, what, error)
    return CosignatureClaim(
        name=strict.string(value["name"], f"the name of {what}", error),
        key_id=strict.hexadecimal(value["key_id"], 4, f"the key_id of {what}", error),
        timestamp_s=strict.integer(value["timestamp_s"], f"the timestamp_s of {what}", error),
    )


def _acknowledgement(value: object) -> AcknowledgementClaim | None:
    what, error = "the acknowledgement of the proof", MalformedProofError
    if value is None:
        return None
    if type(value) is not dict:
        raise error(f"{what} is neither null nor an object")
    strict.members(value, ("base_b64", "key", "signature"), what, error)
    return AcknowledgementClaim(
        base=_base64(value["base_b64"], f"the base_b64 of {what}"),
        key=strict.hexadecimal(value["key"], 32, f"the key of {what}", error),
        signature=strict.hexadecimal(value["signature"], 64, f"the signature of {what}", error),
    )


def _acknowledgement_json(claim: AcknowledgementClaim) -> dict[str, str]:
    return {"base_b64": strict.to_base64(claim.base), "key": claim.key.hex(), "signature": claim.signature.hex()}

"""Judges a proof: the rules, all of them, in the order in which they are applied.

The command line and anybody's own program call `verify_proof`; reading files, the clock and the choice of keys are
theirs. Nothing of an unverified note is acted upon except to pick the keys that could have signed it.

 1. The checkpoint is a well-formed signed note (C2SP signed-note v1, tlog-checkpoint v1).
 2. A key the caller trusts, under the name that the checkpoint's first line gives as origin, signed its text. Every
    signature by a trusted key is checked; one wrong signature refuses the whole note. Unknown keys are ignored.
 3. The same key's tree head line is there, and its signature over the 48 bytes made from the checkpoint's size and
    root, and from the line's date, holds.
 4. That date lies within the key's validity, and, if the caller gives the time, no further in the future than
    clocks may differ.
 5. The `sth` of a proof.json says, member by member, what the checkpoint and its tree head line say.
 6. The path leads from the leaf's bytes, at the leaf's index, to the root: size and root are taken from the verified
    checkpoint, and the path has exactly the length that they demand.
 7. The leaf is canonical, byte for byte.
 8. If the caller gives a body, it is the one that the leaf commits to; if the caller gives expectations, the leaf
    meets them.

What then is proven is that the log's operator recorded this attempt before the head was signed and cannot take it back
or change it: assurance `claimed`. Whether the destination got it, nobody but the destination can attest.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import (
    ExpectationError,
    FutureHeadError,
    HeadMismatchError,
    KeyValidityError,
    MalformedNoteError,
    PayloadMismatchError,
    UntrustedKeyError,
)
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import leaf_hash, verify_inclusion
from kapsel_verifier.note import Checkpoint, Note, VerifierKey, is_key_name
from kapsel_verifier.proof import ASSURANCE, Proof
from kapsel_verifier.sth import SignedTreeHead, STHVerifier
from kapsel_verifier.tlog_proof import TlogProof

MAX_SKEW_MS: Final = 300_000  # five minutes: what clocks of servers and auditors are commonly allowed to differ


class Payload(NamedTuple):
    """The body that was sent, as the caller has it; with the event's salt the commitment is checked too."""

    body: bytes
    salt: bytes | None = None


class VerifiedHead(NamedTuple):
    """A tree head that a trusted key has signed in both forms."""

    key: VerifierKey
    checkpoint: Checkpoint
    sth: SignedTreeHead


class Verified(NamedTuple):
    """What a proof has proven."""

    assurance: str
    head: VerifiedHead
    leaf: Leaf
    leaf_hash: bytes
    leaf_index: int
    payload_matched: bool  # a body was given and is the one that was sent
    commitment_matched: bool  # a salt was given too, and opens the commitment


def verify_proof(
    proof: Proof | TlogProof,
    trusted_keys: Iterable[TrustedKey],
    *,
    payload: Payload | None = None,
    expected: Mapping[str, str] | None = None,
    now_ms: int | None = None,
    max_skew_ms: int = MAX_SKEW_MS,
) -> Verified:
    """Apply every rule of this module and return what is proven; raises a child of VerificationError otherwise.

    `expected` maps names of leaf members to their text (integers in decimal, bytes in hex, `null` for none); `now_ms`
    are milliseconds since 1970-01-01 UTC, without them no head is too new.
    """
    heads = _verified_heads(proof.checkpoint, trusted_keys, now_ms, max_skew_ms)
    head = _matching_head(heads, proof.sth) if isinstance(proof, Proof) else heads[0]
    digest = leaf_hash(proof.leaf)
    verify_inclusion(
        proof.leaf_index, head.checkpoint.tree_size, digest, proof.inclusion_proof, head.checkpoint.root_hash
    )
    leaf = Leaf.parse(proof.leaf)
    if payload is not None:
        _check_payload(leaf, payload)
    _check_expected(leaf, expected or {})
    return Verified(
        assurance=ASSURANCE,
        head=head,
        leaf=leaf,
        leaf_hash=digest,
        leaf_index=proof.leaf_index,
        payload_matched=payload is not None,
        commitment_matched=payload is not None and payload.salt is not None,
    )


def verify_head(
    checkpoint: str,
    trusted_keys: Iterable[TrustedKey],
    *,
    now_ms: int | None = None,
    max_skew_ms: int = MAX_SKEW_MS,
) -> VerifiedHead:
    """Apply rules 1 to 4 to a signed note, as somebody does who holds a log to its word; raises VerificationError."""
    return _verified_heads(checkpoint, trusted_keys, now_ms, max_skew_ms)[0]


def _verified_heads(
    text: str, trusted_keys: Iterable[TrustedKey], now_ms: int | None, max_skew_ms: int
) -> list[VerifiedHead]:
    """Return one head for each trusted key that signed both forms: more than one while a key is being rotated."""
    note = Note.parse(text)
    origin = note.text.partition("\n")[0]
    if not is_key_name(origin):
        raise MalformedNoteError("the origin of the checkpoint cannot be the name of a key")
    # One key may be trusted in two ways, say bare and in a key set: it is valid when one of them says so.
    candidates = [(key, trusted) for trusted in trusted_keys if (key := trusted.under(origin)) is not None]
    heads = _signed_heads(note, list(dict.fromkeys(key for key, _ in candidates)))
    valid = [
        head
        for head in heads
        if any(key == head.key and trusted.is_valid_at(head.sth.timestamp_ms) for key, trusted in candidates)
    ]
    if not valid:
        raise KeyValidityError("the head is dated outside the validity of the key that signed it")
    for head in valid:
        if now_ms is not None and head.sth.timestamp_ms > now_ms + max_skew_ms:
            raise FutureHeadError("the head is dated in the future")
    return valid


def _signed_heads(note: Note, keys: list[VerifierKey]) -> list[VerifiedHead]:
    signatures = note.verify([*keys, *map(STHVerifier, keys)])
    # Should a note hold two lines of one kind by one key, the first counts.
    by_key_id = {signature.key_id: signature.signature for signature in reversed(signatures)}
    signers = [key for key in keys if key.key_id in by_key_id]
    if not signers:
        raise UntrustedKeyError("no trusted key has signed the checkpoint")
    checkpoint = Checkpoint.parse(note.text)
    heads = [
        VerifiedHead(key, checkpoint, SignedTreeHead.from_line(key, checkpoint, line))
        for key in signers
        if (line := by_key_id.get(STHVerifier(key).key_id)) is not None
    ]
    if not heads:
        raise HeadMismatchError("the checkpoint lacks the tree head line of the key that signed it")
    return heads


def _matching_head(heads: list[VerifiedHead], sth: SignedTreeHead) -> VerifiedHead:
    for head in heads:
        if head.sth == sth:
            return head
    signed = heads[0].sth
    differing = [name for name in SignedTreeHead._fields if getattr(sth, name) != getattr(signed, name)]
    raise HeadMismatchError(f"the sth and the checkpoint differ in {', '.join(differing)}")


def _check_payload(leaf: Leaf, payload: Payload) -> None:
    if sha256(payload.body).digest() != leaf.payload_hash:
        raise PayloadMismatchError("the body does not have the hash in the leaf")
    if payload.salt is None:
        return
    if leaf.payload_commitment is None:
        raise PayloadMismatchError("a salt was given and the leaf has no commitment")
    from hmac import compare_digest, digest  # rarely needed, and loading it is felt by the command line

    if not compare_digest(digest(payload.salt, payload.body, "sha256"), leaf.payload_commitment):
        raise PayloadMismatchError("the body and the salt do not open the commitment in the leaf")


def _check_expected(leaf: Leaf, expected: Mapping[str, str]) -> None:
    if not expected:
        return
    actual = leaf.texts()
    for name, value in expected.items():
        if name not in actual:
            raise ExpectationError(f"the leaf has no member {strict.shown(name)}")
        if actual[name] != value:
            raise ExpectationError(f"{name} is {actual[name]}, not {strict.shown(value)}")

"""Judges a proof: the rules, all of them, in the order in which they are applied.

The command line and anybody's own program call `verify_proof`; reading files, the clock and the choice of keys are
theirs. Nothing of an unverified note is acted upon except to pick the keys that could have signed it.

 1. The checkpoint is a well-formed signed note (C2SP signed-note v1, tlog-checkpoint v1).
 2. A key the caller trusts, under the name that the checkpoint's first line gives as origin, signed its text. Every
    signature by a trusted key is checked; one wrong signature refuses the whole note. Unknown keys are ignored.
 3. The same key's tree head line is there, and its signature over the 48 bytes made from the checkpoint's size and
    root, and from the line's date, holds.
 4. That date lies within the key's validity, and, if the caller gives the time, no further in the future than
    clocks may differ, and no further in the past than the caller allows.
 5. The `sth` of a proof.json says, member by member, what the checkpoint and its tree head line say. Where it is by
    another key than those trusted (a key is being rotated), that key's line must be in the note and date it the same.
 6. The path leads from the leaf's bytes, at the leaf's index, to the root: size and root are taken from the verified
    checkpoint, and the path has exactly the length that they demand.
 7. The leaf is canonical, byte for byte: an attempt, or a statement of the log about itself. A key succession is signed
    by both of its keys.
 8. What a proof.json says once more of note and leaf, and of its own strength, is what they say.
 9. The claims that are stronger than the operator's word hold, as far as the caller has the means to check them
    (`levels`), and those that the caller requires are established.
10. If the caller holds another head of the log, one of the two extends the other.
11. If the caller gives a body, it is one that the leaf commits to, as it came or as it was sent, and which of them is
    said; if the caller gives expectations, the leaf meets them.

What then is proven is that the log's operator recorded this attempt before the head was signed and cannot take it back
or change it: assurance `claimed`. Witnesses say that others saw the same log, a block says by when, and whether the
destination got it, nobody but the destination can attest.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from kapsel_verifier import claims, heads, levels, strict
from kapsel_verifier.errors import ExpectationError, HeadMismatchError, PayloadMismatchError
from kapsel_verifier.heads import MAX_SKEW_MS, KnownHead, VerifiedHead
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.leaf import Leaf, parse_any
from kapsel_verifier.levels import Level, Means
from kapsel_verifier.merkle import leaf_hash, verify_inclusion
from kapsel_verifier.note import Checkpoint, Note
from kapsel_verifier.proof import Proof

if TYPE_CHECKING:
    from kapsel_verifier.statements import Statement
    from kapsel_verifier.tlog_proof import TlogProof


class Payload(NamedTuple):
    """The body as it came or as it was sent; with the event's salt the commitment is checked too."""

    body: bytes
    salt: bytes | None = None


class Verified(NamedTuple):
    """What a proof has proven."""

    assurance: str  # the strongest level that is established
    levels: tuple[Level, ...]  # all four, the weakest first
    head: VerifiedHead
    leaf: "Leaf | Statement"
    leaf_hash: bytes
    leaf_index: int
    known: Checkpoint | None  # the head that the caller held, and that agrees with this one
    payload_matched: bool  # a body was given and is the one that was sent
    event_matched: bool  # a body was given and is the one that came; the same, unless a transform made another of it
    commitment_matched: bool  # a salt was given too, and opens the commitment


def verify_proof(
    proof: "Proof | TlogProof",
    trusted_keys: Iterable[TrustedKey],
    *,
    means: Means = Means(),  # noqa: B008 - a value that cannot change
    known: KnownHead | None = None,
    payload: Payload | None = None,
    expected: Mapping[str, str] | None = None,
    now_ms: int | None = None,
    max_skew_ms: int = MAX_SKEW_MS,
    max_age_ms: int | None = None,
) -> Verified:
    """Apply every rule of this module and return what is proven; raises a child of VerificationError otherwise.

    The logs of a policy in `means` are trusted as `trusted_keys` are. `expected` maps names of leaf members to their
    text (integers in decimal, bytes in hex, `null` for none); `now_ms` are milliseconds since 1970-01-01 UTC, without
    them no head is too new or too old.
    """
    trusted = [*trusted_keys, *levels.trusted_by(means.policy)]
    note = Note.parse(proof.checkpoint)
    signed = heads.verified_heads(note, trusted)
    for one in signed:
        heads.check_date(one, now_ms, max_skew_ms, max_age_ms)
    head = heads.matching(signed, proof.sth, note) if isinstance(proof, Proof) else signed[0]
    digest = leaf_hash(proof.leaf)
    verify_inclusion(
        proof.leaf_index, head.checkpoint.tree_size, digest, proof.inclusion_proof, head.checkpoint.root_hash
    )
    leaf = _leaf(proof.leaf)
    cosignatures = claims.cosignatures_in(note)
    if isinstance(proof, Proof):
        _check_claims(proof, cosignatures, claims.acknowledgement_in(leaf))
    judged = (
        levels.claimed(),
        levels.witnessed(note, cosignatures, means.policy),
        levels.anchored(proof.checkpoint, proof.ots, means, head.sth.timestamp_ms),
        levels.acknowledged(leaf, means.destination_keys),
    )
    levels.demand(judged, means.require)
    agreed = None if known is None else heads.check_known(head, known, trusted)
    matched = frozenset[str]() if payload is None else _check_payload(leaf, payload)
    _check_expected(leaf, expected or {})
    return Verified(
        assurance=levels.strongest(judged),
        levels=judged,
        head=head,
        leaf=leaf,
        leaf_hash=digest,
        leaf_index=proof.leaf_index,
        known=agreed,
        payload_matched="sent" in matched,
        event_matched="came" in matched,
        commitment_matched=payload is not None and payload.salt is not None,
    )


def _leaf(data: bytes) -> "Leaf | Statement":
    leaf = parse_any(data)
    if not isinstance(leaf, Leaf):
        from kapsel_verifier.statements import KeySuccession

        if isinstance(leaf, KeySuccession):
            leaf.verify()
    return leaf


def _check_claims(
    proof: Proof,
    cosignatures: tuple[claims.CosignatureClaim, ...],
    acknowledgement: claims.AcknowledgementClaim | None,
) -> None:
    if proof.cosignatures != cosignatures:
        raise HeadMismatchError("the cosignatures of the proof are not those of its checkpoint")
    if proof.acknowledgement != acknowledgement:
        raise HeadMismatchError("the acknowledgement of the proof is not that of its leaf")
    strongest = claims.strongest(cosignatures, proof.ots, acknowledgement)
    if proof.assurance != strongest:
        raise HeadMismatchError(f"the proof claims to be {proof.assurance}, and what it holds comes to {strongest}")


def _check_payload(leaf: "Leaf | Statement", payload: Payload) -> frozenset[str]:
    if not isinstance(leaf, Leaf):
        raise PayloadMismatchError("the leaf is no attempt, and nothing was sent")
    given = sha256(payload.body).digest()
    matched = frozenset(name for name, known in (("came", leaf.payload_hash), ("sent", leaf.sent)) if given == known)
    if not matched:
        raise PayloadMismatchError("the body does not have the hash in the leaf")
    if payload.salt is None:
        return matched
    if leaf.payload_commitment is None:
        raise PayloadMismatchError("a salt was given and the leaf has no commitment")
    from hmac import compare_digest, digest  # rarely needed, and loading it is felt by the command line

    if not compare_digest(digest(payload.salt, payload.body, "sha256"), leaf.payload_commitment):
        raise PayloadMismatchError("the body and the salt do not open the commitment in the leaf")
    return matched


def _check_expected(leaf: "Leaf | Statement", expected: Mapping[str, str]) -> None:
    if not expected:
        return
    actual = leaf.texts()
    for name, value in expected.items():
        if name not in actual:
            raise ExpectationError(f"the leaf has no member {strict.shown(name)}")
        if actual[name] != value:
            raise ExpectationError(f"{name} is {actual[name]}, not {strict.shown(value)}")

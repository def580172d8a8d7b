"""Judges a signed head: whose it is, when it was made, and whether it agrees with another head of the same log.

`verify` asks here for rules 1 to 5 and 10 of its list; whoever only holds a log to its word calls `verify_head`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import (
    ConsistencyError,
    FutureHeadError,
    HeadMismatchError,
    KeyValidityError,
    MalformedNoteError,
    StaleHeadError,
    UntrustedKeyError,
)
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.merkle import verify_consistency
from kapsel_verifier.note import Checkpoint, Note, VerifierKey, is_key_name
from kapsel_verifier.sth import SignedTreeHead, STHVerifier

if TYPE_CHECKING:
    from kapsel_verifier.consistency import ConsistencyProof

MAX_SKEW_MS: Final = 300_000  # five minutes: what clocks of servers and auditors are commonly allowed to differ


class VerifiedHead(NamedTuple):
    """A tree head that a trusted key has signed in both forms."""

    key: VerifierKey
    checkpoint: Checkpoint
    sth: SignedTreeHead


class KnownHead(NamedTuple):
    """A head that the caller holds, and what connects it with the one to judge if their sizes differ."""

    checkpoint: str  # a signed note
    consistency: "ConsistencyProof | None" = None


def verify_head(
    checkpoint: str,
    trusted_keys: Iterable[TrustedKey],
    *,
    now_ms: int | None = None,
    max_skew_ms: int = MAX_SKEW_MS,
    max_age_ms: int | None = None,
) -> VerifiedHead:
    """Apply rules 1 to 4 of `verify` to a signed note; raises a child of VerificationError."""
    head = verified_heads(Note.parse(checkpoint), trusted_keys)[0]
    check_date(head, now_ms, max_skew_ms, max_age_ms)
    return head


def verified_heads(note: Note, trusted_keys: Iterable[TrustedKey]) -> list[VerifiedHead]:
    """Return one head for each valid trusted key that signed both forms: more than one while a key is being rotated.

    Raises UntrustedKeyError, SignatureError, MalformedNoteError, HeadMismatchError or KeyValidityError.
    """
    origin = note.text.partition("\n")[0]
    if not is_key_name(origin):
        raise MalformedNoteError("the origin of the checkpoint cannot be the name of a key")
    # One key may be trusted in two ways, say bare and in a key set: it is valid when one of them says so.
    candidates = [(key, trusted) for trusted in trusted_keys if (key := trusted.under(origin)) is not None]
    if not candidates:
        raise UntrustedKeyError(f"the checkpoint is of the log {strict.shown(origin)}, for which you trust no key")
    heads = _signed_heads(note, list(dict.fromkeys(key for key, _ in candidates)))
    valid = [
        head
        for head in heads
        if any(key == head.key and trusted.is_valid_at(head.sth.timestamp_ms) for key, trusted in candidates)
    ]
    if not valid:
        raise KeyValidityError("the head is dated outside the validity of the key that signed it")
    return valid


def check_date(head: VerifiedHead, now_ms: int | None, max_skew_ms: int, max_age_ms: int | None) -> None:
    """Raise FutureHeadError or StaleHeadError if the head is too new or too old; without a time it is neither."""
    if now_ms is None:
        return
    ahead_ms = head.sth.timestamp_ms - now_ms
    if ahead_ms > max_skew_ms:
        raise FutureHeadError(f"the head is dated {ahead_ms // 1000} s in the future")
    if max_age_ms is not None and -ahead_ms > max_age_ms:
        raise StaleHeadError(f"the head is dated {-ahead_ms // 1000} s ago, you allow {max_age_ms // 1000} s")


def matching(heads: list[VerifiedHead], sth: SignedTreeHead, note: Note) -> VerifiedHead:
    """Return the head that this small form is of, member by member; raises HeadMismatchError.

    While a key is being rotated the small form may be by the key that the caller does not trust (yet, or any more).
    Then it must be a line of the note all the same, and say of the log what the head of a trusted key says.
    """
    for head in heads:
        if head.sth == sth or (_is_by_another(head, sth) and _stands_in(note, head, sth)):
            return head
    signed = heads[0].sth
    differing = [name for name in SignedTreeHead._fields if getattr(sth, name) != getattr(signed, name)]
    raise HeadMismatchError(f"the sth and the checkpoint differ in {', '.join(differing)}")


def _is_by_another(head: VerifiedHead, sth: SignedTreeHead) -> bool:
    ours = head.sth._replace(log_id=sth.log_id, key_id=sth.key_id, signature=sth.signature)
    return ours == sth and head.sth.log_id != sth.log_id and head.sth.key_id != sth.key_id


def _stands_in(note: Note, head: VerifiedHead, sth: SignedTreeHead) -> bool:
    """Say whether the note has the line of this small form, beside those of the head's own key."""
    own = {head.key.key_id, STHVerifier(head.key).key_id}
    line = sth.timestamp_ms.to_bytes(8, "big") + sth.signature
    return any(
        one.name == sth.origin and one.signature == line and one.key_id not in own for one in note.signatures
    ) and any(one.name == sth.origin and one.key_id == sth.key_id for one in note.signatures)


def check_known(head: VerifiedHead, known: KnownHead, trusted_keys: Iterable[TrustedKey]) -> Checkpoint:
    """Check that one of two heads of a log extends the other, whichever is the larger; return the one known.

    Raises ConsistencyError, HeadMismatchError if the consistency proof is between other sizes or of another log, and
    what `verify_head` raises for the head that is known.
    """
    new, old = head.checkpoint, verify_head(known.checkpoint, trusted_keys).checkpoint
    if old.origin != new.origin:
        raise HeadMismatchError(
            f"the head that you hold is of the log {strict.shown(old.origin)}, the proof of {strict.shown(new.origin)}"
        )
    first, second = (old, new) if old.tree_size <= new.tree_size else (new, old)
    verify_consistency(
        first.tree_size,
        second.tree_size,
        _nodes_between(first, second, known.consistency),
        first.root_hash,
        second.root_hash,
    )
    return old


def _nodes_between(first: Checkpoint, second: Checkpoint, proof: "ConsistencyProof | None") -> tuple[bytes, ...]:
    sizes = first.tree_size, second.tree_size
    if proof is None:
        if 0 < sizes[0] < sizes[1]:
            raise ConsistencyError(f"nothing connects the heads of {sizes[0]} and {sizes[1]} leaves")
        return ()
    if proof.origin != first.origin:
        raise HeadMismatchError(f"the consistency proof is of the log {strict.shown(proof.origin)}")
    if (proof.old_size, proof.new_size) != sizes:
        raise HeadMismatchError(
            f"the consistency proof is between {proof.old_size} and {proof.new_size} leaves,"
            f" the heads have {sizes[0]} and {sizes[1]}"
        )
    return proof.proof


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

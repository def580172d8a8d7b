"""Judges how strong a verified proof is: each level is established, only claimed by the file, or absent.

`verify.verify_proof` asks here after the head, the path and the leaf hold. What a level is checked with comes from the
auditor (`Means`), never from the proof. A level that the file claims and that fails the check refuses the whole proof;
one that nothing was given to check stays a claim, and its `detail` says what to give.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.claims import (
    ACKNOWLEDGED,
    ANCHORED,
    CLAIMED,
    LEVELS,
    WITNESSED,
    CosignatureClaim,
)
from kapsel_verifier.errors import AcknowledgementError, AnchorError, QuorumError, UnsupportedProofError
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.note import Note

# `ots` and `acknowledgement` are imported where a proof has something for them: most have not.
if TYPE_CHECKING:
    from kapsel_verifier.ots import Anchor, Timestamp
    from kapsel_verifier.policy import Policy

ESTABLISHED: Final = "established"
UNCHECKED: Final = "unchecked"
ABSENT: Final = "absent"


class Means(NamedTuple):
    """What the auditor has to check the levels with, and which of them there must be."""

    policy: "Policy | None" = None
    block_headers: tuple[bytes, ...] = ()  # 80 bytes each, of blocks that the auditor knows to be in the chain
    min_difficulty: int | None = None  # what a block header must have cost at least; None for the default of `ots`
    destination_keys: tuple[bytes, ...] = ()  # 32 bytes each, as the destination itself publishes them
    require: frozenset[str] = frozenset()  # names of levels


class Level(NamedTuple):
    """One level, what became of it, and why, in a sentence; `facts` are the details for programs."""

    name: str
    state: str
    detail: str
    facts: Mapping[str, Any] = {}


def trusted_by(policy: "Policy | None") -> list[TrustedKey]:
    """Return the keys of the logs that a policy lists."""
    return [] if policy is None else [TrustedKey(log.key.public_key, log.key.name) for log in policy.logs]


def claimed() -> Level:
    """Return the level of every verified proof."""
    return Level(CLAIMED, ESTABLISHED, "the log's operator recorded this and can no longer change it unseen")


def witnessed(note: Note, lines: tuple[CosignatureClaim, ...], policy: "Policy | None") -> Level:
    """Hold the cosignatures of a note to the policy; raises what `Policy.judge` does."""
    names = ", ".join(strict.shown(line.name) for line in lines)
    if policy is None:
        if not lines:
            return Level(WITNESSED, ABSENT, "nobody else has signed the head")
        return Level(WITNESSED, UNCHECKED, f"lines of {names}; give a --policy with the witnesses that you trust")
    judgement = policy.judge(note)
    if judgement.witnessed_at is None:
        state = UNCHECKED if lines else ABSENT
        return Level(WITNESSED, state, "your policy names no quorum" + (f"; there are lines of {names}" * bool(lines)))
    signed = judgement.cosignatures
    facts = {
        "cosignatures": [
            {"name": one.name, "key_id": one.key_id.hex(), "timestamp_s": one.timestamp} for one in signed
        ],
        "witnessed_at_s": judgement.witnessed_at,
    }
    by = ", ".join(strict.shown(one.name) for one in signed)
    return Level(WITNESSED, ESTABLISHED, f"the quorum of your policy has cosigned the head: {by}", facts)


def anchored(checkpoint: str, ots: bytes | None, means: Means, dated_ms: int) -> Level:
    """Hold the timestamp file of a checkpoint to the block headers given.

    Raises AnchorError, MalformedTimestampError, UnsupportedProofError or TooLargeError.
    """
    if ots is None:
        return Level(ANCHORED, ABSENT, "the proof has no timestamp file")
    from kapsel_verifier import ots as timestamps

    timestamp = timestamps.of_file(ots, checkpoint.encode("utf-8"))
    blocks = timestamp.blocks()
    if not blocks:
        calendars = ", ".join(promise.uri for promise in timestamp.promises()) or "nobody"
        return Level(ANCHORED, ABSENT, f"the timestamp is not in a block yet; promised by {calendars}")
    heights = ", ".join(str(block.height) for block in blocks[:8])
    if not means.block_headers:
        return Level(
            ANCHORED, UNCHECKED, f"the timestamp leads to block {heights}; give its header with --block-header",
            {"heights": [block.height for block in blocks]},
        )  # fmt: skip
    floor = timestamps.MIN_DIFFICULTY if means.min_difficulty is None else means.min_difficulty
    anchor = _anchor(timestamp, means.block_headers, dated_ms, floor)
    detail = f"the head existed on {anchor.day}, give or take a day: block {anchor.height} commits to it"
    facts = {"height": anchor.height, "block_hash": anchor.block_hash.hex(), "day": anchor.day}
    return Level(ANCHORED, ESTABLISHED, detail, facts)


def acknowledged(leaf: object, keys: tuple[bytes, ...]) -> Level:
    """Hold the acknowledgement in a leaf to the destination's keys; raises AcknowledgementError."""
    if not isinstance(leaf, Leaf) or leaf.acknowledgement_key is None:
        return Level(ACKNOWLEDGED, ABSENT, "the destination has not signed that it got this")
    from kapsel_verifier import acknowledgement

    # The leaf's own key shows that the leaf does not contradict itself, and nothing about who holds that key.
    found = acknowledgement.check(leaf, leaf.acknowledgement_key)
    facts = {"key": found.key.hex(), "created_s": found.created, "key_id": found.key_id}
    if found.key in keys:
        detail = "the destination's key has signed that it got exactly this body and answered exactly this"
        return Level(ACKNOWLEDGED, ESTABLISHED, detail, facts)
    if keys:
        raise AcknowledgementError(f"the acknowledgement is by {found.key.hex()}, which is no key that you gave")
    detail = f"signed with the key {found.key.hex()}; give --destination-key if that is the destination's"
    return Level(ACKNOWLEDGED, UNCHECKED, detail, facts)


_REFUSALS: Final = {WITNESSED: QuorumError, ANCHORED: AnchorError, ACKNOWLEDGED: AcknowledgementError}


def demand(levels: tuple[Level, ...], required: frozenset[str]) -> None:
    """Raise QuorumError, AnchorError or AcknowledgementError unless every required level is established.

    A level that nobody knows is refused with UnsupportedProofError: a mistyped demand must not be met by silence.
    """
    for name in required.difference(LEVELS):
        raise UnsupportedProofError(f"no level is called {strict.shown(name)}")
    for level in levels:
        if level.name in required and level.state != ESTABLISHED:
            raise _REFUSALS[level.name](f"the proof is not {level.name}: {level.detail}")


def strongest(levels: tuple[Level, ...]) -> str:
    """Return the strongest level that is established."""
    return max((level.name for level in levels if level.state == ESTABLISHED), key=LEVELS.index)


def _anchor(timestamp: "Timestamp", headers: tuple[bytes, ...], dated_ms: int, floor: int) -> "Anchor":
    from kapsel_verifier.ots import check

    refusals = []
    for header in headers:
        try:
            return check(timestamp, header, not_before_ms=dated_ms, min_difficulty=floor)
        except AnchorError as error:
            refusals.append(error)
    raise refusals[0]

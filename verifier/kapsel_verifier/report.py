"""Says for people, and for programs, what a verified proof has proven.

The command line prints it; whoever embeds the verifier may do the same. It judges nothing.
"""

from collections.abc import Iterable
from time import gmtime, strftime
from typing import Any, Final

from kapsel_verifier import ed25519, strict
from kapsel_verifier.claims import ACKNOWLEDGED, ANCHORED, CLAIMED, WITNESSED
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.levels import ABSENT, ESTABLISHED, UNCHECKED
from kapsel_verifier.note import Checkpoint
from kapsel_verifier.verify import Verified

_LAST_MS: Final = 253_402_300_799_999  # the last millisecond of the year 9999
_STATES: Final = {ESTABLISHED: "yes", UNCHECKED: "not checked", ABSENT: "no"}

Fact = tuple[str, str]


def lines(verified: Verified) -> list[str]:
    """Return what is proven as aligned lines of plain text, with how strong it is at the end."""
    return _aligned([*_subject(verified), *_place(verified), *_strength(verified)])


def explanation(verified: Verified) -> list[str]:
    """Return what is proven, what was checked for it in which order, how strong that is, and what it leaves open."""
    proven = [f"  {line}" for line in _aligned([*_subject(verified), *_place(verified)])]
    checked = [f"{number:>2}. {strict.shown(text)}" for number, text in enumerate(_steps(verified), 1)]
    strength = [f"  {line}" for line in _aligned(_strength(verified))]
    missing = [f"  {line}" for line in _not_proven(verified)]
    return [
        "What is proven:",
        *proven,
        "What was checked:",
        *checked,
        "How strong it is:",
        *strength,
        "What it does not prove:",
        *missing,
    ]


def to_json(verified: Verified) -> dict[str, Any]:
    """Return what is proven as a JSON object; the leaf's members are those of the leaf itself."""
    head = verified.head
    return {
        "verified": True,
        "assurance": verified.assurance,
        "levels": {
            level.name: {"state": level.state, "detail": level.detail, **level.facts} for level in verified.levels
        },
        "origin": head.checkpoint.origin,
        "key": head.key.encode(),
        "tree_size": head.checkpoint.tree_size,
        "root_hash": head.checkpoint.root_hash.hex(),
        "head_timestamp_ms": head.sth.timestamp_ms,
        "leaf_index": verified.leaf_index,
        "leaf_hash": verified.leaf_hash.hex(),
        "known_tree_size": None if verified.known is None else verified.known.tree_size,
        "payload_matched": verified.payload_matched,
        "event_matched": verified.event_matched,
        "commitment_matched": verified.commitment_matched,
        "leaf": verified.leaf.members(),
        "ed25519": ed25519.implementation(),
    }


def _aligned(facts: Iterable[Fact]) -> list[str]:
    facts = list(facts)
    width = max(len(label) for label, _ in facts)
    return [f"{label:<{width}}  {strict.shown(text)}" for label, text in facts]


def _subject(verified: Verified) -> list[Fact]:
    leaf = verified.leaf
    if not isinstance(leaf, Leaf):
        return [("Statement", str(leaf.members()["type"])), *leaf.texts().items()]
    status = "no response" if leaf.response_status is None else f"status {leaf.response_status}"
    sent = [] if leaf.sent_hash is None else [("Sent", f"SHA-256 {leaf.sent_hash.hex()}, {_sent(verified)}")]
    return [
        ("Attempt", f"{leaf.delivery_attempt_id} (try {leaf.attempt} of delivery {leaf.delivery_id})"),
        ("Event", leaf.event_id),
        ("From", f"endpoint {leaf.endpoint}, its record number {leaf.endpoint_sequence}"),
        ("To", f"destination {leaf.destination}, {leaf.endpoint_url}"),
        ("Tried at", _time(leaf.timestamp)),
        ("Outcome", f"{leaf.outcome}, {status}" + (f" ({leaf.reason})" if leaf.reason else "")),
        ("Payload", f"SHA-256 {leaf.payload_hash.hex()}, {_payload(verified)}"),
        *sent,
    ]


def _place(verified: Verified) -> list[Fact]:
    head = verified.head
    facts = [
        ("Log", head.checkpoint.origin),
        ("Place", f"leaf {verified.leaf_index} in a tree of {head.checkpoint.tree_size}"),
        ("Root", head.checkpoint.root_hash.hex()),
        ("Signed at", f"{_time(head.sth.timestamp_ms)} with key {head.key.key_id.hex()}"),
    ]
    return facts if verified.known is None else [*facts, ("Head", _agrees(verified.known))]


def _strength(verified: Verified) -> list[Fact]:
    levels = [(level.name.capitalize(), f"{_STATES[level.state]}: {level.detail}") for level in verified.levels]
    return [("Assurance", verified.assurance), *levels]


def _steps(verified: Verified) -> list[str]:
    head, leaf = verified.head, verified.leaf
    size, root = head.checkpoint.tree_size, head.checkpoint.root_hash.hex()
    what = f"attempt {leaf.delivery_attempt_id}" if isinstance(leaf, Leaf) else leaf.members()["type"]
    found = [
        f"The checkpoint is a signed note of the log {head.checkpoint.origin}: {size} leaves with the root {root}.",
        f"A key that you trust has signed its text: {head.key.encode()}.",
        f"The same key has signed size and root with their date: {_time(head.sth.timestamp_ms)}.",
        f"The bytes of the leaf have the hash {verified.leaf_hash.hex()}.",
        f"From it, at place {verified.leaf_index}, the path leads to the signed root, in as many steps as it must.",
        f"The leaf can be read in one way only: {what}.",
        *(
            f"{level.name.capitalize()}: {level.detail}."
            for level in verified.levels
            if level.name != CLAIMED and level.state == ESTABLISHED
        ),
    ]
    if verified.known is not None:
        found.append(f"The head {_agrees(verified.known)}.")
    if verified.event_matched:
        found.append(f"SHA-256 over the body is that of the payload in the leaf: {_payload(verified)}.")
    elif verified.payload_matched:
        found.append(f"SHA-256 over the body is that of what was sent in the leaf: {_sent(verified)}.")
    return found


def _not_proven(verified: Verified) -> list[str]:
    established = {level.name for level in verified.levels if level.state == ESTABLISHED}
    missing = ["that there were no other attempts, or that what was recorded is true"]
    if WITNESSED not in established:
        missing.append("that the log shows everybody the same tree: that is what witnesses are for")
    if ANCHORED not in established:
        missing.append("when it was, other than by the clocks of those who signed")
    if ACKNOWLEDGED not in established:
        missing.append("that the destination got anything: only its own signature says so")
    return missing


def _agrees(known: Checkpoint) -> str:
    return f"agrees with the one of {known.tree_size} leaves that you hold: one extends the other"


def _payload(verified: Verified) -> str:
    if verified.commitment_matched:
        return "the body given matches, and opens the commitment"
    if verified.event_matched:
        return "the body given matches"
    return "the body given is another: what was sent" if verified.payload_matched else "no body was given to compare"


def _sent(verified: Verified) -> str:
    if verified.payload_matched:
        return "made of it by a transform: the body given matches"
    other = "; the body given is another: what came" if verified.event_matched else ""
    return f"made of it by a transform{other}"


def _time(timestamp_ms: int) -> str:
    if timestamp_ms > _LAST_MS:
        return f"{timestamp_ms} ms since 1970"  # nothing keeps a leaf from claiming such a time
    # Not datetime: it would take part of the little time that the command line has to start.
    return f"{strftime('%Y-%m-%d %H:%M:%S', gmtime(timestamp_ms // 1000))}.{timestamp_ms % 1000:03d} UTC"

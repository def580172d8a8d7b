"""Says for people, and for programs, what a verified proof has proven.

The command line prints it; whoever embeds the verifier may do the same. It judges nothing.
"""

from time import gmtime, strftime
from typing import Any, Final

from kapsel_verifier import strict
from kapsel_verifier.verify import Verified

_LAST_MS: Final = 253_402_300_799_999  # the last millisecond of the year 9999


def lines(verified: Verified) -> list[str]:
    """Return what is proven as aligned lines of plain text."""
    facts = _facts(verified)
    width = max(len(label) for label, _ in facts)
    return [f"{label:<{width}}  {strict.shown(text)}" for label, text in facts]


def to_json(verified: Verified) -> dict[str, Any]:
    """Return what is proven as a JSON object; the leaf's members are those of the leaf itself."""
    head = verified.head
    return {
        "verified": True,
        "assurance": verified.assurance,
        "origin": head.checkpoint.origin,
        "key": head.key.encode(),
        "tree_size": head.checkpoint.tree_size,
        "root_hash": head.checkpoint.root_hash.hex(),
        "head_timestamp_ms": head.sth.timestamp_ms,
        "leaf_index": verified.leaf_index,
        "leaf_hash": verified.leaf_hash.hex(),
        "payload_matched": verified.payload_matched,
        "commitment_matched": verified.commitment_matched,
        "leaf": verified.leaf.members(),
    }


def _facts(verified: Verified) -> list[tuple[str, str]]:
    leaf, head = verified.leaf, verified.head
    status = "no response" if leaf.response_status is None else f"status {leaf.response_status}"
    return [
        ("Attempt", f"{leaf.delivery_attempt_id} (try {leaf.attempt} of delivery {leaf.delivery_id})"),
        ("Event", leaf.event_id),
        ("From", f"endpoint {leaf.endpoint}, its record number {leaf.endpoint_sequence}"),
        ("To", f"destination {leaf.destination}, {leaf.endpoint_url}"),
        ("Tried at", _time(leaf.timestamp)),
        ("Outcome", f"{leaf.outcome}, {status}" + (f" ({leaf.reason})" if leaf.reason else "")),
        ("Payload", f"SHA-256 {leaf.payload_hash.hex()}, {_payload(verified)}"),
        ("Log", head.checkpoint.origin),
        ("Place", f"leaf {verified.leaf_index} in a tree of {head.checkpoint.tree_size}"),
        ("Root", head.checkpoint.root_hash.hex()),
        ("Signed at", f"{_time(head.sth.timestamp_ms)} with key {head.key.key_id.hex()}"),
        ("Assurance", "claimed: the log's operator recorded this and cannot change it; nobody else has confirmed it"),
    ]


def _payload(verified: Verified) -> str:
    if verified.commitment_matched:
        return "the body given matches, and opens the commitment"
    return "the body given matches" if verified.payload_matched else "no body was given to compare"


def _time(timestamp_ms: int) -> str:
    if timestamp_ms > _LAST_MS:
        return f"{timestamp_ms} ms since 1970"  # nothing keeps a leaf from claiming such a time
    # Not datetime: it would take part of the little time that the command line has to start.
    return f"{strftime('%Y-%m-%d %H:%M:%S', gmtime(timestamp_ms // 1000))}.{timestamp_ms % 1000:03d} UTC"

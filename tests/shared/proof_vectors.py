"""The cases of tests/vectors/proof as a verifier is given them, and what kapsel_verifier says to one."""

import json
from pathlib import Path
from typing import Any

from kapsel_verifier import jwks, policy
from kapsel_verifier.consistency import ConsistencyProof
from kapsel_verifier.heads import KnownHead
from kapsel_verifier.keys import follow, parse_key, parse_key_set
from kapsel_verifier.levels import Means
from kapsel_verifier.ots import read_header
from kapsel_verifier.proof import is_tlog_proof, parse
from kapsel_verifier.tlog_proof import TlogProof
from kapsel_verifier.verify import Payload, Verified, verify_proof

FOLDER = Path(__file__).parents[1] / "vectors"

Case = dict[str, Any]


def load() -> dict[str, Case]:
    """Return all cases by name, with what they have repeated written out."""
    return {path.stem: _whole(json.loads(path.read_text())) for path in sorted(FOLDER.glob("proof/*.json"))}


def judge(case: Case) -> Verified:
    """Judge a case as the README of the vectors describes it; raises a child of VerificationError."""
    trusted = [parse_key(text) for text in case["keys"]]
    if (key_set := _data(case, "key_set")) is not None:
        trusted += parse_key_set(key_set)
    if (successors := _data(case, "successors")) is not None:
        trusted = [*follow(trusted, parse_key_set(successors))]
    declared = _data(case, "policy")
    means = Means(
        policy=None if declared is None else policy.parse(declared),
        block_headers=tuple(read_header(text.encode()) for text in case.get("block_headers", [])),
        min_difficulty=case.get("min_difficulty"),
        destination_keys=_destination_keys(case),
        require=frozenset(case.get("require", [])),
    )
    known = _known(case)
    # Last of what is read, as the page does: which of two faults is told first is not said anywhere.
    data = _data(case, "proof") or b""
    proof = TlogProof.parse(data) if is_tlog_proof(data) else parse(data)
    salt = bytes.fromhex(case["payload_salt"]) if "payload_salt" in case else None
    return verify_proof(
        proof,
        trusted,
        means=means,
        known=known,
        payload=Payload(bytes.fromhex(case["payload"]), salt) if "payload" in case else None,
        expected=case.get("expected"),
        now_ms=case.get("now_ms"),
        max_age_ms=case.get("max_age_ms"),
    )


def _whole(case: Case) -> Case:
    if "repeat" not in case:
        return case
    member, text, times = (case["repeat"][name] for name in ("member", "text", "times"))
    return {**case, member: case[member].replace(text, text * times, 1)}


def _data(case: Case, name: str) -> bytes | None:
    if f"{name}_hex" in case:
        return bytes.fromhex(case[f"{name}_hex"])
    return case[name].encode() if name in case else None


def _destination_keys(case: Case) -> tuple[bytes, ...]:
    if (directory := _data(case, "destination_key_set")) is not None:
        return tuple(key.public for key in jwks.parse(directory))
    return tuple(bytes.fromhex(text) for text in case.get("destination_keys", []))


def _known(case: Case) -> KnownHead | None:
    if "known_checkpoint" not in case:
        return None
    consistency = _data(case, "consistency")
    return KnownHead(case["known_checkpoint"], None if consistency is None else ConsistencyProof.parse(consistency))

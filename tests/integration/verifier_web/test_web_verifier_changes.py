"""Whatever is changed in what the page is given, its verdict stays that of kapsel_verifier."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kapsel_verifier import claims
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.keys import TrustedKey, encode_key_set
from kapsel_verifier.leaf import Leaf, parse_any
from kapsel_verifier.proof import Proof

VECTORS = Path(__file__).parents[2] / "vectors"
# White space, what JSON and notes are made of, and what looks like it.
CHARACTERS = '\t\n\r {}[]",:;()?*@\\+-=/0123456789abcdefABCZz.eE\u2014\u00e9\u0085\u00a0\ufeff\x00\x7f\U0001f600'
FIELDS = ("proof", "keys", "key_set", "policy", "block_headers", "known_checkpoint", "consistency")
# A proof has most to go wrong in it.
WEIGHTS = (4, 1, 1, 1, 1, 1, 1)

Case = dict[str, Any]
Judge = Callable[[dict[str, Case]], dict[str, Case]]
Python = Callable[[Case], Case]


def summary(result: Case) -> tuple[str | None, dict[str, str]]:
    """Return the class of refusal, and what became of each level."""
    return result.get("error"), {name: level["state"] for name, level in result.get("levels", {}).items()}


def agree(judge: Judge, python_says: Python, cases: dict[str, Case]) -> list[str | None]:
    """Demand the same of both for each case, and return the classes."""
    judged = judge(cases)
    ours = {name: summary(judged[name]) for name in cases}
    theirs = {name: summary(python_says(case)) for name, case in cases.items()}
    differing = {name: (ours[name], theirs[name], cases[name]) for name in cases if ours[name] != theirs[name]}
    assert differing == {}
    return [error for error, _ in ours.values()]


def changed(text: str, chance: random.Random) -> str:
    """Return the text with a few characters replaced, left out, doubled, put in or put in another order."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(text) + 1)
        end = at + chance.randrange(9)
        text = chance.choice(
            (
                text[:at] + chance.choice(CHARACTERS) + text[at + 1 :],
                text[:at] + text[end:],
                text[:end] + text[at:],
                text[:at] + chance.choice(CHARACTERS) + text[at:],
                text[:at]
                + "".join(chr(ord(one) ^ 1 << chance.randrange(7)) for one in text[at : at + 1])
                + text[at + 1 :],
                "\n".join(chance.sample(lines := text.split("\n"), len(lines))),
            )
        )
    # Files may hold any bytes, the cases of these tests are text.
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def test_whichever_byte_of_a_proof_is_changed(judge: Judge, python_says: Python) -> None:
    case = json.loads((VECTORS / "proof" / "valid.json").read_text())
    data = case["proof"].encode()
    made = {
        str(at): {"keys": case["keys"], "proof_hex": bytes([*data[:at], data[at] ^ 1 << at % 7, *data[at + 1 :]]).hex()}
        for at in range(len(data))
    }
    errors = agree(judge, python_says, made)
    assert sum(error is not None for error in errors) > 0.99 * len(data)  # hex and escapes have spellings


def test_whatever_is_changed_in_a_vector(judge: Judge, python_says: Python) -> None:
    chance = random.Random(6962)
    cases = [(path.stem, json.loads(path.read_text())) for path in sorted(VECTORS.glob("proof/*.json"))]
    cases = [(name, case) for name, case in cases if "proof" in case and len(case["proof"]) < 20_000]
    made: dict[str, Case] = {}
    while len(made) < 1500:
        name, case = chance.choice(cases)
        field = chance.choices(FIELDS, WEIGHTS)[0]
        if field in case:
            value = case[field]
            new = changed(value, chance) if type(value) is str else [changed(item, chance) for item in value]
            made[f"{name}, {field} {len(made)}"] = {**case, field: new}
    assert len(set(agree(judge, python_says, made))) > 15


def test_whatever_a_log_signs(judge: Judge, python_says: Python, vectors: ModuleType) -> None:
    """A changed leaf, note or acknowledgement that is signed all the same, as only its owner could."""
    chance = random.Random(9421)
    made = {f"{kind} {number}": case for number, (kind, case) in zip(range(900), signed(vectors, chance), strict=False)}
    errors = agree(judge, python_says, made)
    assert {"MalformedLeafError", "MalformedNoteError", "AcknowledgementError", "SignatureError", None} <= set(errors)


def signed(vectors: ModuleType, chance: random.Random) -> Iterator[tuple[str, Case]]:
    statements = [vectors.succession().encode(), vectors.continuation().encode()]
    destination = [bytes(vectors.signer("destination").verify_key).hex()]
    text = vectors.PROOF.checkpoint.partition("\n\n")[0] + "\n"
    while True:
        leaf = chance.choice([*vectors.LEAVES, *statements]).decode()
        yield "leaf", vectors.case("", of_log_with(vectors, changed(leaf, chance).encode()), None)
        yield "member", vectors.case("", of_log_with(vectors, with_other_member(json.loads(leaf), chance)), None)
        yield "note", vectors.case("", vectors.resigned(changed(text, chance)), None)
        leaf = acknowledged(vectors, changed_base(json.loads(vectors.ACK_LEAF), chance))
        yield "base", vectors.case("", of_log_with(vectors, leaf), None, destination_keys=destination)


def of_log_with(vectors: ModuleType, leaf: bytes) -> Proof:
    """Return the proof of a log with this leaf, which says of its acknowledgement what the leaf does."""
    proof: Proof = vectors.of_a_log_with(leaf)
    try:
        claim = claims.acknowledgement_in(parse_any(leaf))
    except VerificationError:
        return proof
    return proof._replace(acknowledgement=claim, assurance=claims.strongest((), None, claim))


def with_other_member(leaf: dict[str, Any], chance: random.Random) -> bytes:
    values = (None, True, 0, 1, 1000, 2**53 - 1, 2**53, "", "x", "X" * 300, "00" * 32, "AA==", "a/b", "\u00e9", [], {})
    leaf[chance.choice(list(leaf))] = chance.choice(values)
    return json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()


def changed_base(leaf: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    first, newline, last = base64.b64decode(leaf["acknowledgement_base"]).decode().rpartition("\n")
    whole = (
        first + newline + changed(last, chance) if chance.random() < 0.7 else changed(first + newline + last, chance)
    )
    return {**leaf, "acknowledgement_base": base64.b64encode(whole.encode()).decode()}


def acknowledged(vectors: ModuleType, leaf: dict[str, Any]) -> bytes:
    signature = vectors.sign("destination")(base64.b64decode(leaf["acknowledgement_base"])).hex()
    return json.dumps({**leaf, "acknowledgement_signature": signature}, sort_keys=True, separators=(",", ":")).encode()


def test_keys_that_a_trusted_one_announced(judge: Judge, python_says: Python, vectors: ModuleType) -> None:
    link = vectors.succession(timestamp=vectors.HEAD_MS - 2000, not_before=vectors.HEAD_MS - 1000)
    offers = {
        "followed": link.encode(),
        "not yet": vectors.succession().encode(),
        "forged": link._replace(successor_signature=bytes(64)).encode(),
        "another statement": vectors.continuation().encode(),
        "an attempt": vectors.LEAVES[0],
        "no leaf": b"{}",
    }
    proof = by_successor(vectors)
    made = {}
    for name, succession in offers.items():
        key = TrustedKey(vectors.vkey("successor").public_key, vectors.ORIGIN, succession=succession)
        offered = encode_key_set([key]).decode()
        made[name] = vectors.case("", proof, None, successors=offered)
        made[f"{name}, bare key"] = {**made[name], "keys": [vectors.vkey().public_key.hex()]}
        made[f"{name}, a stranger's key"] = {**made[name], "keys": [vectors.vkey("stranger").encode()]}
    made["not offered"] = vectors.case("", proof, None)
    errors = agree(judge, python_says, made)
    assert {None, "KeyValidityError", "SignatureError", "MalformedLeafError", "UntrustedKeyError"} == set(errors)


def test_what_only_the_owner_of_a_key_can_get_wrong(judge: Judge, python_says: Python, vectors: ModuleType) -> None:
    failed = vectors.acknowledged(Leaf.parse(vectors.ACK_LEAF.encode())._replace(response_status=500))
    later = vectors.make_head(vectors.LEAVES, timestamp_ms=vectors.HEAD_MS + 1).sth
    dated_twice = vectors.PROOF._replace(checkpoint=vectors.PROOF.checkpoint + later.line(vectors.vkey()))
    cut = {"policy": vectors.policy("group two 2 a b c\nquorum none")}
    made = {
        "a failure that is acknowledged": vectors.case("", of_log_with(vectors, failed.encode()), None),
        "two dates, the first in the file": vectors.case("", dated_twice, None),
        "two dates, the second in the file": vectors.case("", dated_twice._replace(sth=later), None),
        "a policy that was cut": vectors.case("", vectors.PROOF, None, **cut),
    }
    expected = ["AcknowledgementError", None, "HeadMismatchError", "MalformedPolicyError"]
    assert agree(judge, python_says, made) == expected


def by_successor(vectors: ModuleType) -> Proof:
    """Return a proof under a head that the next key of the log signed alone."""
    head = vectors.make_head(vectors.LEAVES, vectors.vkey("successor"), seed="successor")
    proof: Proof = vectors.PROOF._replace(sth=head.sth, checkpoint=head.checkpoint)
    return proof

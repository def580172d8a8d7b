import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kapsel_verifier import (
    ed25519,
    errors,
    jwks,
    leaf_hash,
    merkle,
    node_hash,
    policy,
    root_from_leaves,
    tiles,
    verify_consistency,
    verify_inclusion,
)
from kapsel_verifier.consistency import ConsistencyProof
from kapsel_verifier.errors import MalformedTileError, VerificationError
from kapsel_verifier.heads import KnownHead
from kapsel_verifier.keys import parse_key, parse_key_set
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.levels import Means
from kapsel_verifier.note import Note, VerifierKey
from kapsel_verifier.ots import read_header
from kapsel_verifier.proof import Proof, is_tlog_proof, parse
from kapsel_verifier.sth import STHVerifier, find_sth, sth_message
from kapsel_verifier.tlog_proof import TlogProof
from kapsel_verifier.verify import Payload, Verified, verify_proof

VECTORS = Path(__file__).parents[2] / "vectors"
CASES = sorted(path.stem for path in VECTORS.glob("proof/*.json"))


def judge(case: dict[str, Any]) -> Verified:
    data = case["proof"].encode("utf-8") if "proof" in case else bytes.fromhex(case["proof_hex"])
    keys = [parse_key(text) for text in case["keys"]]
    if "key_set" in case:
        keys += parse_key_set(case["key_set"].encode())
    proof: Proof | TlogProof = TlogProof.parse(data) if is_tlog_proof(data) else parse(data)
    salt = bytes.fromhex(case["payload_salt"]) if "payload_salt" in case else None
    return verify_proof(
        proof,
        keys,
        means=Means(
            policy=policy.parse(case["policy"]) if "policy" in case else None,
            block_headers=tuple(read_header(text.encode()) for text in case.get("block_headers", [])),
            min_difficulty=case.get("min_difficulty"),
            destination_keys=destination_keys(case),
            require=frozenset(case.get("require", [])),
        ),
        known=known(case),
        payload=Payload(bytes.fromhex(case["payload"]), salt) if "payload" in case else None,
        expected=case.get("expected"),
        now_ms=case.get("now_ms"),
        max_age_ms=case.get("max_age_ms"),
    )


def destination_keys(case: dict[str, Any]) -> tuple[bytes, ...]:
    if "destination_key_set" in case:
        return tuple(key.public for key in jwks.parse(case["destination_key_set"].encode()))
    return tuple(bytes.fromhex(text) for text in case.get("destination_keys", []))


def known(case: dict[str, Any]) -> KnownHead | None:
    if "known_checkpoint" not in case:
        return None
    consistency = ConsistencyProof.parse(case["consistency"].encode()) if "consistency" in case else None
    return KnownHead(case["known_checkpoint"], consistency)


def test_the_committed_vectors_are_those_the_generator_makes(log: ModuleType, vectors: Path) -> None:
    made = [*vectors.glob("*.json"), *vectors.glob("proof/*.json")]  # other folders are written by hand
    committed = {path.relative_to(vectors).as_posix(): path.read_bytes() for path in made}
    assert committed == log.files()


@pytest.mark.parametrize("name", CASES)
def test_each_proof_gets_the_verdict_of_its_vector(name: str) -> None:
    case = json.loads((VECTORS / "proof" / f"{name}.json").read_text())
    if case["error"] is None:
        assert {level.name: level.state for level in judge(case).levels} == case["levels"]
        return
    with pytest.raises(VerificationError) as refusal:
        judge(case)
    assert (type(refusal.value).__name__, refusal.value.exit_code) == (case["error"], case["exit_code"])


def test_without_pynacl_every_vector_gets_the_same_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl._sodium", None)  # what an import finds where pynacl is not installed
    assert ed25519.implementation() == "Python"
    for name in CASES:
        case = json.loads((VECTORS / "proof" / f"{name}.json").read_text())
        try:
            found = {level.name: level.state for level in judge(case).levels}
        except VerificationError as refusal:
            assert (name, type(refusal).__name__) == (name, case["error"])  # noqa: PT017 - some are refused
        else:
            assert (name, found) == (name, case.get("levels"))


def test_every_class_of_refusal_has_a_vector_or_cannot_come_from_a_proof() -> None:
    shown = {json.loads((VECTORS / "proof" / f"{name}.json").read_text())["error"] for name in CASES}
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert classes - shown == {"VerificationError", "MalformedTileError"}


def test_exit_codes_are_distinct() -> None:
    codes = [
        value.exit_code for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "exit_code")
    ]
    assert len(codes) == len(set(codes))


def test_merkle_vectors_hold() -> None:
    vector = json.loads((VECTORS / "merkle.json").read_text())
    hashes = [leaf_hash(bytes.fromhex(text)) for text in vector["leaves"]]
    roots = [bytes.fromhex(text) for text in vector["roots"]]
    assert [value.hex() for value in hashes] == vector["leaf_hashes"]
    assert node_hash(*hashes[:2]).hex() == vector["node_of_the_first_two"]
    assert [root_from_leaves(hashes[:size]) for size in range(9)] == roots
    for row in vector["inclusion"]:
        i, n = row["leaf_index"], row["tree_size"]
        verify_inclusion(i, n, hashes[i], [bytes.fromhex(text) for text in row["proof"]], roots[n])
    for row in vector["consistency"]:
        m, n = row["old_size"], row["new_size"]
        verify_consistency(m, n, [bytes.fromhex(text) for text in row["proof"]], roots[m], roots[n])


def test_tile_vectors_hold() -> None:
    vector = json.loads((VECTORS / "tiles.json").read_text())
    for row in vector["tile_paths"]:
        assert tiles.parse_path(row["path"]) == ((row["level"], row["number"]), row["hashes"])
    for row in vector["bundle_paths"]:
        assert tiles.parse_entries_path(row["path"]) == (row["number"], row["entries"])
    for path in vector["no_paths"]:
        for parse_path in (tiles.parse_path, tiles.parse_entries_path):
            with pytest.raises(MalformedTileError):
                parse_path(path)
    for row in vector["bundles"]:
        entries = [bytes.fromhex(text) for text in row["entries"]]
        assert tiles.parse_bundle(bytes.fromhex(row["bundle"]), len(entries)) == entries
    for row in vector["no_bundles"]:
        with pytest.raises(MalformedTileError):
            tiles.parse_bundle(bytes.fromhex(row["bundle"]), row["entries"])


def test_the_roots_are_those_of_the_certificate_transparency_reference_tree() -> None:
    roots = json.loads((VECTORS / "merkle.json").read_text())["roots"]
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert roots[1:] == [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]


def test_the_note_vector_holds_byte_by_byte() -> None:
    vector = json.loads((VECTORS / "note.json").read_text())
    key = VerifierKey.parse(vector["vkey"])
    note = Note.parse(vector["checkpoint"])
    note.verify([key, STHVerifier(key)])
    sth = find_sth(note, [key])
    assert note.text == vector["text"]
    assert sth.to_json() == vector["sth"]
    assert sth_message(sth.tree_size, sth.timestamp_ms, sth.root_hash).hex() == vector["sth_message"]
    assert (key.key_id.hex(), STHVerifier(key).key_id.hex()) == (vector["key_id"], vector["sth_key_id"])
    assert leaf_hash(Leaf.parse(vector["leaf"].encode()).encode()).hex() == vector["leaf_hash"]


def test_the_format_document_lists_every_class_with_its_exit_code() -> None:
    document = (VECTORS.parents[1] / "docs" / "proof-format.md").read_text()
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, VerificationError):
            assert f"| {value.exit_code} | {name.removesuffix('Error')} | " in document

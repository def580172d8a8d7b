import ast
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import proof_vectors
import pytest
from proof_vectors import judge

from kapsel_verifier import (
    ed25519,
    errors,
    leaf_hash,
    merkle,
    node_hash,
    root_from_leaves,
    tiles,
    verify_consistency,
    verify_inclusion,
)
from kapsel_verifier.errors import MalformedTileError, VerificationError
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.note import Note, VerifierKey
from kapsel_verifier.sth import STHVerifier, find_sth, sth_message

VECTORS = proof_vectors.FOLDER
CASES = proof_vectors.load()
TraceFunction = Callable[[FrameType, str, Any], Any]


def test_the_committed_vectors_are_those_the_generator_makes(log: ModuleType, vectors: Path) -> None:
    made = [*vectors.glob("*.json"), *vectors.glob("proof/*.json")]  # other folders are written by hand
    committed = {path.relative_to(vectors).as_posix(): path.read_bytes() for path in made}
    assert committed == log.files()


@pytest.mark.parametrize("name", CASES)
def test_each_proof_gets_the_verdict_of_its_vector(name: str) -> None:
    case = CASES[name]
    if case["error"] is None:
        assert {level.name: level.state for level in judge(case).levels} == case["levels"]
        return
    with pytest.raises(VerificationError) as refusal:
        judge(case)
    assert (type(refusal.value).__name__, refusal.value.exit_code) == (case["error"], case["exit_code"])


def test_without_pynacl_every_vector_gets_the_same_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl._sodium", None)  # what an import finds where pynacl is not installed
    assert ed25519.implementation() == "Python"
    for name, case in CASES.items():
        try:
            found = {level.name: level.state for level in judge(case).levels}
        except VerificationError as refusal:
            assert (name, type(refusal).__name__) == (name, case["error"])  # noqa: PT017 - some are refused
        else:
            assert (name, found) == (name, case.get("levels"))


def test_every_class_of_refusal_has_a_vector_or_cannot_come_from_a_proof() -> None:
    shown = {case["error"] for case in CASES.values()}
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert classes - shown == {"VerificationError", "MalformedTileError"}


# Modules that no proof is judged by, and vectors cannot reach.
BESIDE = {
    "add_checkpoint": "what witnesses are asked",
    "cli": "a command line",
    "given": "a command line",
    "options": "a command line",
    "pure_ed25519": "ed25519.json has its vectors",
    "report": "what is printed",
    "single_file": "how a file is made of all of them",
    "tiles": "tiles.json has its vectors",
}
WRITES = "said of what is written, not read"
ASKED = "said of what a destination answers, not of what is proven"
READ = "the reader has refused it before"
FIRST = "what comes first in the judgement has refused it"
# Refusals that no vector can reach: the function, the message as it stands there, and why.
UNREACHED = {
    ("acknowledgement.offered", "the response has more than {MAX_OFFERED} signatures with the tag {TAG}"): ASKED,
    (
        "acknowledgement.offered",
        "the Content-Digest of the response is missing, or not the one SHA-256 of its body",
    ): ASKED,
    ("acknowledgement.check", "the leaf has no acknowledgement"): FIRST,
    (
        "acknowledgement.check",
        "the acknowledgement names another key than the one you gave for the destination",
    ): FIRST,
    ("acknowledgement._offer", "the signature's parameters do not begin with a list of components"): ASKED,
    ("acknowledgement._offer", "the signature is missing or is no byte sequence"): ASKED,
    ("acknowledgement._offer", "the signature does not have {ed25519.SIGNATURE_SIZE} bytes"): READ,
    (
        "ed25519.verify",
        "an Ed25519 public key has {PUBLIC_KEY_SIZE} bytes, this one has {len(public_key)}",
    ): READ,
    ("keys._to_json", "a key without a name cannot be published, nobody could tell which log it is for"): WRITES,
    ("keys._to_jwk", "a key without a name cannot be published, nobody could tell which log it is for"): WRITES,
    ("leaf.parse", "the leaf, MAX_LEAF_SIZE"): READ,
    ("leaf._check_numbers", "a number in the leaf is not from 0 to 2^53 - 1"): READ,
    (
        "leaf._check_acknowledgement",
        "the leaf's acknowledgement does not have a key of 32 and a signature of 64 bytes",
    ): READ,
    ("leaf._check_hashes", "a hash or salt in the leaf does not have 32 bytes"): READ,
    ("leaf._check_hashes", "a hash in the leaf does not have 32 bytes"): READ,
    ("merkle.verify_consistency", "a tree of {new_size} leaves cannot extend one of {old_size}"): FIRST,
    ("merkle._verify_trivial_consistency", "the older tree is empty and its root is not the empty root"): READ,
    ("merkle._require_hashes", "every hash must have {HASH_SIZE} bytes"): READ,
    ("note.signature_line", "_NO_KEY_NAME"): WRITES,
    ("note.parse", "the checkpoint does not end in a newline"): READ,
    ("ots.check", "the timestamp names no block of Bitcoin yet"): FIRST,
    ("ots._worked", "a block header has {HEADER_SIZE} bytes, this one has {len(header)}"): READ,
    ("ots_paths.parse", "the timestamp, MAX_SIZE"): READ,
    ("statements._check_frame", "the statement's salt does not have 32 bytes"): READ,
    ("statements._check_frame", "the statement's timestamp is not from 0 to 2^53 - 1"): READ,
    ("statements._encode", "the leaf, MAX_LEAF_SIZE"): READ,
    ("statements._check", "a signature in the statement does not have 64 bytes"): READ,
    ("sth.find_sth", "the checkpoint carries no tree head line by a known key"): WRITES,
    (
        "sth.sign_head",
        "the key {strict.shown(key.name)} is not named after the origin {strict.shown(checkpoint.origin)}",
    ): WRITES,
    ("structured_fields.dictionary", "{what} has the member {key} twice"): ASKED,
    ("structured_fields.dictionary", "{what} ends in a comma"): ASKED,
    ("structured_fields.__init__", "{what} is longer than {MAX_SIZE} characters"): ASKED,
}


def test_each_refusal_is_reached_by_a_vector_or_cannot_be() -> None:
    reached = _lines_of(CASES.values())
    unreached = {
        (function, message)
        for function, message, path, lines in _raises()
        if not any((path, line) in reached for line in lines)
    }
    assert unreached == UNREACHED.keys()


def _raises() -> Iterator[tuple[str, str, str, range]]:
    """Yield each refusal of the judging modules: function, message as it stands there, file and lines."""
    for path in sorted(Path(errors.__file__).parent.glob("*.py")):
        source = path.read_text()
        functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
        for function in functions if path.stem not in BESIDE else ():
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    words = [ast.get_source_segment(source, one) or "" for one in node.exc.args]
                    message = ", ".join(word.removeprefix("f").strip('"') for word in words)
                    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    yield f"{path.stem}.{function.name}", message, str(path), lines


def _lines_of(cases: Iterable[proof_vectors.Case]) -> set[tuple[str, int]]:
    """Return the lines of the verifier that run while these cases are judged."""
    folder = str(Path(errors.__file__).parent)
    found: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> TraceFunction | None:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if event == "line":
            found.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for case in cases:
            with contextlib.suppress(VerificationError):
                judge(case)
    finally:
        sys.settrace(before)
    return found


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

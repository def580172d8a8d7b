"""kapsel-verify with what an auditor gives: how strong a proof is, other heads of the log, and input that is bad."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kapsel_verifier.cli import main
from kapsel_verifier.keys import TrustedKey, encode_key_set
from kapsel_verifier.proof import Proof
from kapsel_verifier.strict import to_base64

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(log: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on a proof in an empty folder with the log's key; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(proof: Proof | bytes, *arguments: str, key: str | None = None) -> tuple[int, str, str]:
        Path("proof.json").write_bytes(proof.encode() if isinstance(proof, Proof) else proof)
        code = main(["--proof", "proof.json", "--public-key", key or log.vkey().encode(), *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def destination_key(log: ModuleType) -> bytes:
    return bytes(log.signer("destination").verify_key)


def anchored(log: ModuleType) -> Proof:
    proof: Proof = log.rebuilt(log.PROOF.checkpoint, log.timestamp_of(log.PROOF.checkpoint, log.in_block()))
    return proof


def test_what_was_not_checked_is_said_with_what_to_give(run: Run, log: ModuleType) -> None:
    checkpoint = log.PROOF.checkpoint + log.cosigned("a")
    proof = log.rebuilt(checkpoint, log.timestamp_of(checkpoint, log.in_block()), log.ACKNOWLEDGED)
    code, out, _ = run(proof)
    assert code == 0
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()[-5:]}
    assert said["Assurance"] == "claimed"
    assert said["Claimed"].startswith("yes: ")
    for name, option in (
        ("Witnessed", "--policy"),
        ("Anchored", "--block-header"),
        ("Acknowledged", "--destination-key"),
    ):
        assert said[name].startswith("not checked: ")
        assert option in said[name]


def test_a_policy_demands_its_quorum_and_may_list_the_log_too(run: Run, log: ModuleType) -> None:
    Path("policy").write_text(log.policy())
    witnessed = log.rebuilt(log.PROOF.checkpoint + log.cosigned("a", "b"))
    code, out, _ = run(witnessed, "--policy", "policy", "--json")
    assert code == 0
    level = json.loads(out)["levels"]["witnessed"]
    assert level["state"] == "established"
    assert [one["name"] for one in level["cosignatures"]] == ["witness.example.org/a", "witness.example.org/b"]
    assert main(["--proof", "proof.json", "--policy", "policy"]) == 0
    code, _, err = run(log.rebuilt(log.PROOF.checkpoint + log.cosigned("a")), "--policy", "policy")
    assert code == 24
    assert "there is no cosignature by b, c" in err
    Path("policy").write_text("quorum most\n")
    assert run(witnessed, "--policy", "policy")[0] == 17


def test_a_block_header_comes_as_hex_or_as_a_file_of_either_form(run: Run, log: ModuleType) -> None:
    header = log.block(log.PROOF.checkpoint)
    Path("header.bin").write_bytes(header)
    Path("header.hex").write_text(header.hex() + "\n")
    for given in (header.hex(), "header.bin", "header.hex"):
        code, out, _ = run(anchored(log), "--block-header", given, "--min-difficulty", "0", "--json")
        assert (code, json.loads(out)["levels"]["anchored"]["day"]) == (0, "2026-01-01")
    code, _, err = run(anchored(log), "--block-header", header.hex())
    assert code == 33
    assert "too easy" in err
    code, _, err = run(log.PROOF, "--block-header", header.hex())
    assert code == 33
    assert "has no timestamp file" in err
    assert run(anchored(log), "--block-header", "zz" * 80)[0] == 33


def test_a_destinations_key_comes_as_manifests_write_it_or_as_a_file_of_lines_or_of_a_key_set(
    run: Run, log: ModuleType
) -> None:
    proof, key = log.make_proof(log.LEAVES, log.ACKNOWLEDGED), destination_key(log)
    x = to_base64(key).translate(str.maketrans("+/", "-_")).rstrip("=")
    Path("lines").write_text(f"# billing\n\n{'00' * 32}\n{key.hex().upper()}\n")
    Path("text").write_text(f"whpk_{to_base64(key)}\n")
    Path("set.jwks").write_text(json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}))
    for given in (key.hex(), f"whpk_{to_base64(key)}", "lines", "text", "set.jwks"):
        code, out, _ = run(proof, "--destination-key", given)
        assert code == 0
        assert "Assurance     acknowledged" in out
    code, _, err = run(proof, "--destination-key", "00" * 32)
    assert code == 25
    assert "no key that you gave" in err
    assert run(log.PROOF, "--destination-key", key.hex())[0] == 25


@pytest.mark.parametrize("text", ["whpk_", "whpk_keys.txt", "whpk_MTIz", "whpk_" + "A" * 43, "00" * 31 + "zz"])
def test_a_text_that_is_almost_a_key_of_a_destination_is_refused_as_one(run: Run, log: ModuleType, text: str) -> None:
    code, _, err = run(log.PROOF, "--destination-key", text)
    assert code == 14
    assert "a key of the destination" in err


@pytest.mark.parametrize("content", [b"", b"# none\n", b"zz\n", b"\xff", b"{}", b'{"keys": []}', b"00" * 31])
def test_a_file_without_a_key_of_a_destination_is_refused(run: Run, log: ModuleType, content: bytes) -> None:
    Path("keys").write_bytes(content)
    assert run(log.PROOF, "--destination-key", "keys")[0] == 14


@pytest.mark.parametrize(("level", "exit_code"), [("witnessed", 24), ("anchored", 33), ("acknowledged", 25)])
def test_a_required_level_that_is_only_claimed_or_absent_is_refused(
    run: Run, log: ModuleType, level: str, exit_code: int
) -> None:
    code, out, err = run(log.PROOF, "--require", level)
    assert (code, out) == (exit_code, "")
    assert f"the proof is not {level}: " in err
    checkpoint = log.PROOF.checkpoint + log.cosigned("a")
    claims_it = log.rebuilt(checkpoint, log.timestamp_of(checkpoint, log.in_block()), log.ACKNOWLEDGED)
    assert run(claims_it, "--require", level)[0] == exit_code


def test_keys_that_the_trusted_one_announced_count_and_no_others(run: Run, log: ModuleType) -> None:
    """An auditor who pinned the first key years ago checks a proof under the second."""
    successor, stranger = log.vkey("successor"), log.vkey("stranger")
    leaf = log.succession(not_before=log.HEAD_MS).encode()
    head = log.sign_head(log.Checkpoint.parse(log.TEXT.decode()), log.HEAD_MS, successor, log.sign("successor"))
    proof = log.PROOF._replace(checkpoint=head.checkpoint, sth=head.sth)
    keys = [TrustedKey(successor.public_key, log.ORIGIN, succession=leaf), TrustedKey(stranger.public_key, log.ORIGIN)]
    Path("keys.json").write_bytes(encode_key_set(keys))
    assert run(proof)[0] == 20
    assert run(proof, "--successors", "keys.json")[0] == 0
    assert run(proof, "--successors", "keys.json", key=stranger.encode())[0] == 20
    forged = log.succession(not_before=log.HEAD_MS, predecessor_signature=bytes(64)).encode()
    Path("keys.json").write_bytes(encode_key_set([TrustedKey(successor.public_key, log.ORIGIN, succession=forged)]))
    assert run(proof, "--successors", "keys.json")[0] == 21


def test_a_head_that_is_known_must_agree(run: Run, log: ModuleType) -> None:
    Path("older").write_text(log.make_head(log.LEAVES[:7]).checkpoint)
    Path("proof").write_text(log.between(7, log.SIZE))
    code, out, _ = run(log.PROOF, "--known-checkpoint", "older", "--consistency", "proof")
    assert code == 0
    assert "agrees with the one of 7 leaves that you hold" in out
    code, _, err = run(log.PROOF, "--known-checkpoint", "older")
    assert code == 32
    assert "nothing connects the heads of 7 and 13 leaves" in err
    Path("rewritten").write_text(log.make_head(log.LEAVES[1:8]).checkpoint)
    assert run(log.PROOF, "--known-checkpoint", "rewritten", "--consistency", "proof")[0] == 32
    Path("rewritten").write_bytes(b"\xff")
    assert run(log.PROOF, "--known-checkpoint", "rewritten")[0] == 13


def test_a_head_older_than_allowed_is_refused(run: Run, log: ModuleType) -> None:
    code, _, err = run(log.PROOF, "--max-age", "60")
    assert code == 26
    assert "you allow 60 s" in err
    assert run(log.PROOF, "--max-age", str(2**53))[0] == 0


def test_an_explanation_numbers_what_was_checked_and_names_what_is_not_proven(run: Run, log: ModuleType) -> None:
    Path("body").write_bytes(log.BODY)
    _, weak, _ = run(log.PROOF, "--explain", "--body", "body")
    for text in (
        " 1. The checkpoint is a signed note",
        " 7. SHA-256 over the body",
        "How strong it is:",
        "its own signature",
    ):
        assert text in weak
    key = destination_key(log).hex()
    _, strong, _ = run(log.make_proof(log.LEAVES, log.ACKNOWLEDGED), "--explain", "--destination-key", key)
    assert " 7. Acknowledged: the destination's key has signed" in strong
    assert "its own signature" not in strong


def test_a_statement_of_the_log_is_reported_by_its_members(run: Run, log: ModuleType) -> None:
    code, out, _ = run(log.of_a_log_with(log.succession().encode()))
    assert code == 0
    assert "kapsel.key-succession" in out
    assert log.vkey("successor").encode() in out
    code, out, _ = run(log.of_a_log_with(log.continuation().encode()), "--explain")
    assert code == 0
    assert "kapsel.log-continuation" in out


def bad_input(log: ModuleType) -> dict[str, tuple[bytes, list[str], int, str]]:
    """What the issue names: content of the proof, further arguments, exit code, and what the refusal must say."""
    text = log.PROOF.encode().decode()
    nodes = json.loads(text)["inclusion_proof"]

    def with_(**changes: Any) -> bytes:
        return json.dumps(log.with_(**changes)).encode()

    other = log.make_proof(log.LEAVES, log.INDEX, key=log.vkey(origin="log.example.com/bank")).encode()
    ahead = log.make_proof(log.LEAVES, 0, timestamp_ms=2**53 - 1).encode()
    return {
        "a proof of another log": (other, [], 20, "of the log log.example.com/bank, for which you trust no key"),
        "a stale head": (log.PROOF.encode(), ["--max-age", "1"], 26, "the head is dated"),
        "a future head": (ahead, [], 23, "in the future"),
        "a truncated path": (with_(inclusion_proof=nodes[:-1]), [], 31, "has 3 hashes where 4 are needed"),
        "a padded path": (with_(inclusion_proof=[*nodes, "00" * 32]), [], 31, "has 5 hashes where 4 are needed"),
        "a duplicate key": (("{" + '"leaf_index":5,' + text[1:]).encode(), [], 10, "has the member leaf_index twice"),
        "loose base64": (with_(leaf_b64=log.loose(log.make_b64(log.LEAVES[log.INDEX]))), [], 10, "canonical base64"),
        "a huge number": (
            log.raw('"leaf_index":5', '"leaf_index":' + "9" * 9999).encode(),
            [],
            10,
            f"leaf_index is {'9' * 20}..., which",
        ),
        "an index of 2^53": (
            with_(leaf_index=2**53),
            [],
            10,
            "leaf_index is 9007199254740992, which is not an integer",
        ),
        "a negative size": (log.raw('"tree_size":13', '"tree_size":-1').encode(), [], 10, "sth.tree_size is -1, which"),
        "a float in a list": (
            with_(cosignatures=[log.LISTED, {**log.LISTED, "timestamp_s": 1.5}]),
            [],
            10,
            "cosignatures[1].timestamp_s is 1.5, which is not an integer",
        ),
        "a duplicate in sth": (log.raw('"sth":{', '"sth":{"alg":1,').encode(), [], 10, "has the member sth.alg twice"),
        "a short hash": (with_(inclusion_proof=[*nodes[:2], "00"]), [], 10, "inclusion_proof[2] is not 32 bytes"),
        "a cosignature without name": (with_(cosignatures=[{}]), [], 10, "cosignatures[0] has no member name"),
        "a byte order mark": (b"\xef\xbb\xbf" + text.encode(), [], 10, "begins with a byte order mark"),
        "a letter of Latin-1": (b'{"\xe9', [], 10, "is not UTF-8 at byte 2"),
        "a public key of letters": (
            text.encode(),
            ["--public-key", "zz"],
            14,
            "the public key is neither a vkey nor 64 hex digits",
        ),
        "a key inside": (with_(public_key="00" * 32), [], 15, "brings a key, in a member public_key"),
    }


CASES = [
    "a proof of another log", "a stale head", "a future head", "a truncated path", "a padded path", "a duplicate key",
    "loose base64", "a huge number", "a key inside", "an index of 2^53", "a negative size", "a float in a list",
    "a duplicate in sth", "a short hash", "a cosignature without name", "a byte order mark", "a letter of Latin-1",
    "a public key of letters",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_a_clear_refusal_that_says_what_and_where(run: Run, log: ModuleType, name: str) -> None:
    content, arguments, exit_code, said = bad_input(log)[name]
    code, out, err = run(content, *arguments)
    assert (code, out) == (exit_code, "")
    assert said in err
    assert err.count("\n") == 1
    assert len(err) < 400


def test_every_bad_input_is_tried(log: ModuleType) -> None:
    assert sorted(bad_input(log)) == sorted(CASES)


OPTIONS = [
    "--proof",
    "--keys",
    "--successors",
    "--policy",
    "--body",
    "--known-checkpoint",
    "--consistency",
    "--block-header",
    "--destination-key",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_file_of_a_gigabyte_is_refused_after_its_limit(run: Run, log: ModuleType, option: str) -> None:
    """Sparse, so that it takes no room here; read whole it would take a gigabyte of memory."""
    with Path("huge").open("wb") as file:
        file.truncate(1 << 30)
    Path("known").write_text(log.PROOF.checkpoint)
    arguments = [option, "huge"] if option != "--consistency" else ["--known-checkpoint", "known", option, "huge"]
    code, out, err = run(log.PROOF, *arguments)
    assert (code, out) == (16, "")
    assert "is larger than" in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to so much address space")
def test_a_file_of_a_gigabyte_is_not_read_into_memory(log: ModuleType, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); "
    program = f"{limited}import sys; from kapsel_verifier.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "--proof", str(tmp_path / "huge"), "--public-key", log.vkey().encode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (16, "")
    assert done.stderr.startswith("kapsel-verify: the proof is larger than 1048576 bytes: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--require", "trusted"],
        ["--require"],
        ["--consistency", "c"],
        ["--min-difficulty", "5"],
        ["--block-header", "00", "--min-difficulty=-1"],
        ["--max-age=-1"],
        ["--policy", "missing"],
        ["--block-header", "missing"],
        ["--destination-key", "missing"],
        ["--known-checkpoint", "missing"],
        ["--explain", "--json"],
    ],
    ids=str,
)
def test_wrong_usage_is_exit_code_two(run: Run, log: ModuleType, arguments: list[str]) -> None:
    code, out, err = run(log.PROOF, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("kapsel-verify: ")


def test_help_lists_every_exit_code_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    from kapsel_verifier import errors

    with pytest.raises(SystemExit):
        main(["--help"])
    help_ = capsys.readouterr().out
    codes = {value.exit_code for value in vars(errors).values() if hasattr(value, "exit_code")} - {1}
    assert {code for code in codes if f" {code} " not in help_} == set()

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import IO

import pytest

from kapsel_verifier.cli import main
from kapsel_verifier.keys import TrustedKey, encode_key_set


@pytest.fixture
def proof_file(log: ModuleType, tmp_path: Path) -> str:
    path = tmp_path / "proof.json"
    path.write_bytes(log.PROOF.encode())
    return str(path)


@pytest.fixture
def vkey(log: ModuleType) -> str:
    return str(log.vkey().encode())


def test_a_good_proof_is_reported_in_aligned_lines(
    proof_file: str, vkey: str, log: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--proof", proof_file, "--public-key", vkey]) == 0
    output = capsys.readouterr()
    first, *facts = output.out.splitlines()
    assert first == "Proof verified successfully!"
    assert {line[:12].strip() for line in facts} >= {"Attempt", "Event", "Outcome", "Log", "Assurance", "Witnessed"}
    assert {line[12:14] for line in facts} == {"  "}
    assert output.err == ""


def test_keys_come_as_hex_as_vkey_or_from_either_form_of_key_set(
    proof_file: str, vkey: str, log: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "lines").write_text(f"# log\n{vkey}\n")
    key = TrustedKey(public_key=log.vkey().public_key, name=log.ORIGIN)
    (tmp_path / "keys.json").write_bytes(encode_key_set([key]))
    for given in (
        ["--public-key", log.vkey().public_key.hex()],
        ["--keys", str(tmp_path / "lines")],
        ["--keys", str(tmp_path / "keys.json")],
        ["--public-key", "00" * 32, "--public-key", vkey],
    ):
        assert main(["--proof", proof_file, *given]) == 0


def test_a_refusal_is_one_sentence_and_the_exit_code_of_its_class(
    vkey: str, log: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").write_text(log.raw('"leaf_index":5', '"leaf_index":4'))
    assert main(["--proof", str(tmp_path / "bad"), "--public-key", vkey]) == 31
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("kapsel-verify: the path from the leaf does not lead to the root: ")


def test_json_output_says_the_same_for_programs(
    proof_file: str, vkey: str, log: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--proof", proof_file, "--public-key", vkey, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["leaf"]["event_id"] == log.uuid("event 1")
    assert main(["--proof", proof_file, "--public-key", "00" * 32, "--json"]) == 20
    refusal = json.loads(capsys.readouterr().out)
    assert (refusal["verified"], refusal["error"], refusal["exit_code"]) == (False, "UntrustedKeyError", 20)


def test_a_body_a_salt_and_expectations_are_checked_if_given(
    proof_file: str, vkey: str, log: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "body").write_bytes(log.BODY)
    given = ["--proof", proof_file, "--public-key", vkey, "--body", str(tmp_path / "body")]
    assert main([*given, "--payload-salt", log.EVENT_SALT.hex(), "--expect", "outcome=delivered"]) == 0
    assert "opens the commitment" in capsys.readouterr().out
    assert main([*given, "--payload-salt", "00"]) == 40
    assert main([*given, "--expect", "outcome=refused"]) == 41
    (tmp_path / "body").write_bytes(b"another")
    assert main(given) == 40


@pytest.mark.parametrize(
    ("name", "words", "payload_matched", "event_matched"),
    [
        (
            "valid-transformed",
            ["the body given matches", "transform; the body given is another: what came"],
            False,
            True,
        ),
        (
            "valid-transformed-sent",
            ["given is another: what was sent", "transform: the body given matches"],
            True,
            False,
        ),
    ],
)
def test_where_a_transform_made_another_body_it_is_said_which_of_them_was_given(
    name: str,
    words: list[str],
    payload_matched: bool,
    event_matched: bool,
    log: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (case,) = (case for found, case in log.proof_cases() if found == name)
    (tmp_path / "proof").write_text(case["proof"])
    (tmp_path / "body").write_bytes(bytes.fromhex(case["payload"]))
    given = ["--proof", str(tmp_path / "proof"), "--body", str(tmp_path / "body")]
    for key in case["keys"]:
        given += ["--public-key", key]
    assert main(given) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("Payload", "Sent"))]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True, True]
    assert main([*given, "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert (judged["payload_matched"], judged["event_matched"]) == (payload_matched, event_matched)


def test_a_tlog_proof_is_recognised(vkey: str, log: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "p.tlog-proof").write_bytes(log.TlogProof.of(log.PROOF).encode())
    assert main(["--proof", str(tmp_path / "p.tlog-proof"), "--public-key", vkey]) == 0


def test_a_head_from_the_future_is_refused_within_the_allowed_skew_only(
    vkey: str, log: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "proof").write_bytes(log.make_proof(log.LEAVES, 0, timestamp_ms=2**53 - 1).encode())
    given = ["--proof", str(tmp_path / "proof"), "--public-key", vkey]
    assert main(given) == 23
    assert main([*given, "--clock-skew", str(2**53)]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--proof", "p"],
        ["--proof", "p", "--public-key"],
        ["--proof", "missing", "--public-key", "00" * 32],
        ["--proof", "/", "--public-key", "00" * 32],
        ["--proof", "nul\0", "--public-key", "00" * 32],
        ["--proof", "p", "--keys", "missing"],
        ["--proof", "p", "--public-key", "00" * 32, "--expect", "outcome"],
        ["--proof", "p", "--public-key", "00" * 32, "--payload-salt", "00"],
        ["--proof", "p", "--public-key", "00" * 32, "--body", "/dev/null", "--payload-salt", "zz"],
        ["--proof", "p", "--public-key", "00" * 32, "--clock-skew", "soon"],
        ["--proof", "p", "--public-key", "00" * 32, "--clock-skew=-1"],
        ["--proof", "p", "--public-key", "00" * 32, "--unknown"],
        ["--proof", "p", "--pub", "00" * 32],
    ],
    ids=str,
)
def test_wrong_usage_is_one_sentence_and_exit_code_two(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("kapsel-verify: ")
    assert output.err.count("\n") == 1


def test_an_endless_file_is_read_up_to_its_limit(proof_file: str, vkey: str) -> None:
    assert main(["--proof", "/dev/zero", "--public-key", vkey]) == 16
    assert main(["--proof", proof_file, "--keys", "/dev/zero"]) == 16


def test_help_says_what_the_exit_codes_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "31 not in the log" in capsys.readouterr().out


def run(*arguments: str, stdin: bytes = b"", stdout: int | IO[str] = subprocess.PIPE) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-m", "kapsel_verifier", *arguments]
    done = subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=240, check=False)
    return done.returncode, done.stdout or b"", done.stderr


def test_it_runs_as_a_module_and_reads_standard_input(vkey: str, log: ModuleType) -> None:
    code, out, err = run("--proof", "-", "--public-key", vkey, stdin=log.PROOF.encode())
    assert (code, err) == (0, b"")
    assert out.startswith(b"Proof verified successfully!\n")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_an_output_that_cannot_be_written_is_one_sentence_too(proof_file: str, vkey: str) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = run("--proof", proof_file, "--public-key", vkey, stdout=full)
    assert (code, err) == (1, b"kapsel-verify: cannot write the result: No space left on device\n")

"""A proof checked by hand: examples/audit/by-hand.sh, which docs/auditing.md walks through, on the vectors."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "audit" / "by-hand.sh"
MARK = "== next step =="
TOOLS = ("bash", "openssl", "perl", "sed", "base64", "sha256sum")
# What the arithmetic shows; all else, such as spelling and dates, is left to kapsel-verify.
REFUSED = (
    *("inclusion-leaf-altered", "inclusion-index", "inclusion-index-beyond", "inclusion-node-as-leaf"),
    *("inclusion-other-leaf", "inclusion-path-altered", "inclusion-path-cut", "inclusion-path-empty"),
    *("inclusion-path-order", "inclusion-path-padded", "payload-other", "signature-extension", "signature-root"),
    *("signature-other-signer", "signature-size", "untrusted-key", "untrusted-key-id", "untrusted-origin"),
)
ACCEPTED = ("valid", "valid-first", "valid-lone-right", "valid-one-leaf", "valid-payload", "valid-rotation")


def require_tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"checking by hand needs {', '.join(missing)}: install them with your package manager")


def check(name: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    require_tools()
    case: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "proof" / f"{name}.json").read_text())
    proof = tmp_path / "proof.json"
    proof.write_text(case["proof"])
    arguments = [str(SCRIPT), str(proof), case["keys"][0]]
    if "payload" in case:
        body = tmp_path / "body"
        body.write_bytes(bytes.fromhex(case["payload"]))
        arguments.append(str(body))
    return subprocess.run(arguments, capture_output=True, text=True, errors="replace", check=False)


@pytest.mark.parametrize("name", ACCEPTED)
def test_sound_proofs_pass(name: str, tmp_path: Path) -> None:
    done = check(name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is in the log that log.example.com/shop signed." in done.stdout


@pytest.mark.parametrize("name", REFUSED)
def test_proofs_whose_arithmetic_fails_are_refused(name: str, tmp_path: Path) -> None:
    done = check(name, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("REFUSED: ")


def test_what_stands_in_a_proof_is_never_carried_out(tmp_path: Path) -> None:
    require_tools()
    proof = (ROOT / "examples" / "audit" / "proof.json").read_text()
    for old, new in (
        ("\\n20\\n", f"\\nindex[$(touch {tmp_path}/done)0]\\n"),
        ('"leaf_index":13', f'"leaf_index":"at[$(touch {tmp_path}/done)0]"'),
    ):
        assert old in proof
        (tmp_path / "proof.json").write_text(proof.replace(old, new))
        key = (ROOT / "examples" / "audit" / "log.vkey").read_text().strip()
        command = ["bash", str(SCRIPT), str(tmp_path / "proof.json"), key]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == "REFUSED: size or index is not a number\n"
        assert not (tmp_path / "done").exists()


def test_the_walk_in_the_docs_prints_what_the_docs_say(tmp_path: Path) -> None:
    require_tools()
    text = (ROOT / "docs" / "auditing.md").read_text()
    walk = text[text.index("**1. The leaf**") : text.index("## A whole log")]
    steps = re.findall(r"```shell\n(.*?)```\n\n```text\n(.*?)```", walk, re.DOTALL)
    assert len(steps) == 6
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    script = "".join(f"{commands}\nprintf '%s' '{MARK}'\n" for commands, _ in steps)
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    printed = [part.rstrip("\n") for part in done.stdout.split(MARK)]
    assert printed == [*(expected.rstrip("\n") for _, expected in steps), ""], done.stderr


def test_the_proof_of_the_docs_holds_for_kapsel_verify_as_well() -> None:
    folder = ROOT / "examples" / "audit"
    key = (folder / "log.vkey").read_text().strip()
    command = [sys.executable, "-m", "kapsel_verifier", "--proof", str(folder / "proof.json"), "--public-key", key]
    done = subprocess.run([*command, "--body", str(folder / "body.json")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

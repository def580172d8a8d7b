"""kapsel-verify as one file: the same bytes from the same sources, and nothing needed but a Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kapsel_verifier import single_file

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist") / "new" / "kapsel-verify.pyz"
    assert single_file.main([str(target), str(ROOT / "LICENSE")]) == 0
    return target


def run(pyz: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -I -S: no environment, no site-packages, so neither kapsel nor pynacl can be found anywhere else.
    command = [sys.executable, "-I", "-S", str(pyz), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=pyz.parent)


def test_it_verifies_without_anything_installed(pyz: Path, log: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "proof.json").write_bytes(log.PROOF.encode())
    done = run(pyz, "--proof", str(tmp_path / "proof.json"), "--public-key", log.vkey().encode(), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["verified"], said["ed25519"]) == (True, "Python")


def test_it_refuses_with_the_exit_code_of_the_class(pyz: Path, log: ModuleType, tmp_path: Path) -> None:
    altered = log.PROOF.checkpoint.replace("\n13\n", "\n14\n")
    (tmp_path / "proof.json").write_text(json.dumps(log.with_(checkpoint=altered)))
    done = run(pyz, "--proof", str(tmp_path / "proof.json"), "--public-key", log.vkey().encode())
    assert done.returncode == 21
    assert done.stderr.startswith("kapsel-verify: the signature of log.example.com/shop over the checkpoint is wrong: ")


def test_every_level_can_be_established_with_it(pyz: Path, log: ModuleType, tmp_path: Path) -> None:
    checkpoint = log.PROOF.checkpoint + log.cosigned("a", "b")
    proof = log.rebuilt(checkpoint, log.timestamp_of(checkpoint, log.in_block()), log.ACKNOWLEDGED)
    (tmp_path / "proof.json").write_bytes(proof.encode())
    (tmp_path / "policy").write_text(log.policy())
    done = run(
        pyz, "--proof", str(tmp_path / "proof.json"), "--policy", str(tmp_path / "policy"),
        "--block-header", log.block(checkpoint).hex(), "--min-difficulty", "0",
        "--destination-key", bytes(log.signer("destination").verify_key).hex(), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {level["state"] for level in json.loads(done.stdout)["levels"].values()} == {"established"}


def test_the_same_sources_make_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    """Copied elsewhere, with other dates and rights, the package packs itself into the same file."""
    source = Path(single_file.__file__).parent
    copy = tmp_path / "kapsel_verifier"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    target = tmp_path / "again.pyz"
    command = [sys.executable, "-m", "kapsel_verifier.single_file", str(target), str(ROOT / "LICENSE")]
    subprocess.run(command, check=True, timeout=240, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert target.read_bytes() == pyz.read_bytes()


def test_an_old_python_is_told_so_before_it_stumbles_over_the_syntax() -> None:
    old = single_file.MAIN.replace("sys.version_info", "(3, 8, 1)")
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (1, "kapsel-verify: needs Python 3.11 or newer, this is 3.8\n")


def test_it_can_be_run_as_a_program(pyz: Path) -> None:
    assert os.access(pyz, os.X_OK)
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_the_packer_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert single_file.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")

"""What `make demo` runs: the whole path of webhooks, proven and forged, with exit code 0."""

import subprocess
import sys
from pathlib import Path


def test_the_demonstration_runs_and_proves_what_it_shows() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "kapsel_cli.demo"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Proof verified successfully!" in done.stdout
    assert "Assurance     acknowledged" in done.stdout
    assert "signature_mismatch" in done.stdout
    assert "exhausted" in done.stdout
    assert "the path from the leaf does not lead to the root" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

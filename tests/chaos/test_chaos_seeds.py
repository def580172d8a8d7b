"""Worlds that are run with every change: `make chaos` runs many more."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEADLINE = 1500  # seconds, on a machine where everybody is at work


@pytest.mark.timeout(DEADLINE + 60)
def test_the_kept_worlds_are_without_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulation", "--kept", "--jobs", "1"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 bad seeds" in done.stdout

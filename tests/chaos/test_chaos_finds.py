"""The harness under test: each planted bug is found for what it is, and a seed is the same run each time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.bugs import BUGS

HERE = Path(__file__).parent


def simulation(*options: str) -> subprocess.CompletedProcess[str]:
    """Run it in processes of its own, for it replaces time and chance in those where it is."""
    return subprocess.run(
        [sys.executable, "-m", "simulation", "--jobs", "4", *options],
        check=False,
        cwd=HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=560,
    )


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What came of each planted bug."""
    done = simulation("--bugs")
    return dict(line.split(",", 1) for line in done.stdout.splitlines() if ", seed " in line)


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found_for_what_it_is(told: dict[str, str], bug: str) -> None:
    assert bug in told
    assert "NOT FOUND" not in told[bug], told[bug]


def test_the_seeds_that_found_something_are_good_and_the_same_each_time() -> None:
    done = simulation("--kept", "--twice")
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]

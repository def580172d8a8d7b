"""`kapsel up` on a Postgres that others run: one instance at a time, and an answer when it is not there."""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapsel_cli.postgres import EmbeddedPostgres

RELAY = """\
apiVersion: kapsel.dev/v1alpha1
kind: Relay
metadata: {name: main}
"""


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A server of somebody else's."""
    with tempfile.TemporaryDirectory(prefix="kapsel-test-") as directory:
        started = EmbeddedPostgres(Path(directory))
        started.start()
        yield started
        started.stop()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "relay.yaml").write_text(RELAY)
    return tmp_path


def up(directory: Path, data: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "kapsel_cli", "up", str(directory / "manifests"), "--port", "0"]
    return subprocess.Popen(
        [*command, "--data-dir", str(directory / data), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def running(directory: Path, data: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = up(directory, data, *arguments)
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        else:
            raise AssertionError(said)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=240)


def test_one_instance_runs_on_a_database_wherever_its_own_data_is(server: EmbeddedPostgres, directory: Path) -> None:
    with running(directory, "one", "--database-url", server.url) as first:
        second = up(directory, "two", "--database-url", server.url)
        said, _ = second.communicate(timeout=240)
        assert second.returncode == 1
        assert "another kapsel up runs on this database" in said
        assert "Traceback" not in said
    assert first.returncode == 0
    assert not (directory / "one" / "postgres").exists()
    stranger = up(directory, "two", "--database-url", server.url)
    said, _ = stranger.communicate(timeout=240)
    assert "Put the sealing.key back that this data was written with" in said
    assert "Traceback" not in said


def test_the_lock_goes_with_its_owner_however_that_ends(server: EmbeddedPostgres, directory: Path) -> None:
    with running(directory, "one", "--database-url", server.url) as first:
        first.kill()
        first.wait()
        with running(directory, "one", "--database-url", server.url) as second:
            pass
        assert second.returncode == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql:///kapsel?host=/nowhere&user=kapsel", "the database cannot be used"),
        ("postgresql://kapsel:very-secret@127.0.0.1:9/kapsel", "the database cannot be used"),
        ("mysql://localhost/kapsel", "the database cannot be used"),
    ],
)
def test_a_database_that_is_not_there_is_one_sentence(directory: Path, url: str, said: str) -> None:
    process = up(directory, "one", "--database-url", url)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert said in output
    assert "--database-url" in output
    assert "Traceback" not in output
    assert "very-secret" not in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere-at-all"], "nowhere-at-all is not a directory"),
        (["--workers", "0", "x"], "0 is not a number from 1 to 64"),
        (["--relay", "main", "x"], "main is not NAMESPACE/NAME"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-P", "-m", "kapsel_cli", "up", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr

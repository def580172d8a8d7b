"""`kapsel up` as a person sees it: real processes, started, killed, reconfigured and stopped."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ENDPOINT = """\
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {{name: {name}, namespace: shop}}
spec:
  verification:
    bearer:
      secretRef: {{name: tokens}}
  destinations:
  - name: nowhere
    url: http://127.0.0.1:9/
    suspend: true
"""
COMMON = """\
apiVersion: kapsel.dev/v1alpha1
kind: Relay
metadata: {name: main, namespace: shop}
spec:
  egress: {allowedCIDRs: [127.0.0.1/32], allowHTTP: true}
---
apiVersion: kapsel.dev/v1alpha1
kind: AttestationLog
metadata: {name: log, namespace: shop}
spec: {origin: log.test/up}
---
apiVersion: v1
kind: Secret
metadata: {name: tokens, namespace: shop}
stringData: {token: let-me-in}
"""


class Up:
    """A running `kapsel up` and what it has said."""

    def __init__(self, directory: Path, data_dir: Path, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "kapsel_cli", "up", str(directory), "--data-dir", str(data_dir)]
        self.data_dir = data_dir
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--workers", "1", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.said.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def wait_for(self, pattern: str, since: int = 0) -> str:
        """Wait until a line that was said after `since` matches."""
        found: list[str] = []

        def said() -> bool:
            found[:] = [line for line in self.said[since:] if re.search(pattern, line)]
            return bool(found) or self.process.poll() is not None

        wait_until(said, f"{pattern!r} is said; so far:\n{self.text}")
        assert found, f"ended without saying {pattern!r}:\n{self.text}"
        return found[0]

    def ready(self) -> "Up":
        self.wait_for("Ctrl-C")
        return self

    @property
    def urls(self) -> dict[str, str]:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
        return dict(json.loads((self.data_dir / "up.json").read_text()))

    def post(self, endpoint: str) -> int:
        request = urllib.request.Request(
            f"{self.urls['ingest']}/ingest/shop/{endpoint}", b"{}", {"Authorization": "Bearer let-me-in"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def pid_of(self, name: str) -> int:
        """Return the process id of a child of this instance, or else of one of theirs."""
        this = psutil.Process(self.process.pid)
        for child in (*this.children(), *this.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # one that has just ended
                if any(name in argument for argument in child.cmdline()):
                    return int(child.pid)
        raise AssertionError(f"no child {name}")

    def await_child(self, name: str) -> int:
        """Return the process id of a child as soon as there is one."""
        found: list[int] = []

        def is_there() -> bool:
            with contextlib.suppress(AssertionError):
                found.append(self.pid_of(name))
            return bool(found)

        wait_until(is_there, f"there is a child {name}")
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 240) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            self._reader.join(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def write(manifest: Path, text: str) -> None:
    """Write a manifest so that nobody reads half of it."""
    new = manifest.parents[1] / "new.yaml"
    new.write_text(text)
    new.rename(manifest)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def left_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; one that has ended may wait for a while to be buried."""
    left = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


@contextlib.contextmanager
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kapsel-test-") as directory:
        manifests = Path(directory) / "manifests"
        manifests.mkdir()
        (manifests / "common.yaml").write_text(COMMON)
        (manifests / "first.yaml").write_text(ENDPOINT.format(name="first"))
        yield Path(directory)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Up, Path]]:
    """One instance for all tests that leave it running."""
    with place() as directory:
        up = Up(directory / "manifests", directory / "data")
        try:
            yield up.ready(), directory
        finally:
            up.stop()


def test_it_says_where_to_send_webhooks_and_takes_them(shared: tuple[Up, Path]) -> None:
    up, _ = shared
    assert f"{up.urls['ingest']}/ingest/shop/first" in up.text
    assert re.search(r"/ingest/[0-9a-f]{8}-", up.text)
    assert up.urls["console"] in up.text
    assert up.post("first") == 202


def test_the_data_directory_is_for_its_owner_alone(shared: tuple[Up, Path]) -> None:
    _, directory = shared
    assert (directory / "data").stat().st_mode & 0o066 == 0
    for name in ("sealing.key", "up.json", "lock"):
        assert (directory / "data" / name).stat().st_mode & 0o077 == 0


def test_a_second_instance_on_the_same_data_is_refused_by_name(shared: tuple[Up, Path]) -> None:
    up, directory = shared
    second = Up(directory / "manifests", directory / "data")
    assert second.stop(signal.SIGCONT) == 1
    assert f"another kapsel up (pid {up.process.pid}) runs on {directory / 'data'}" in second.text
    assert "Traceback" not in second.text
    assert up.post("first") == 202


def test_a_taken_port_is_named_with_its_flag(shared: tuple[Up, Path]) -> None:
    up, directory = shared
    port = up.urls["ingest"].rpartition(":")[2]
    second = Up(directory / "manifests", directory / "other", "--port", port)
    assert second.stop(signal.SIGCONT) == 1
    assert f"port {port} on 127.0.0.1 is taken" in second.text
    assert "--port" in second.text


def test_changes_are_applied_while_it_runs(shared: tuple[Up, Path]) -> None:
    up, directory = shared
    manifest = directory / "manifests" / "second.yaml"
    write(manifest, ENDPOINT.format(name="second"))
    up.wait_for("endpoint shop/second added")
    wait_until(lambda: up.post("second") == 202, "the new endpoint takes webhooks")
    since = len(up.said)
    manifest.unlink()
    up.wait_for("endpoint shop/second removed", since)
    wait_until(lambda: up.post("second") in (404, 410), "the old endpoint is gone")


def test_a_broken_manifest_is_named_and_what_it_declared_keeps_running(shared: tuple[Up, Path]) -> None:
    up, directory = shared
    manifest = directory / "manifests" / "first.yaml"
    since = len(up.said)
    write(manifest, ENDPOINT.format(name="first").replace("url:", "uri:"))
    line = up.wait_for(r"first\.yaml:\d+: WebhookEndpoint shop/first: spec\.destinations\[0\]", since)
    assert "allowed: " in line
    assert up.post("first") == 202
    since = len(up.said)
    write(manifest, ENDPOINT.format(name="first"))
    up.wait_for("no manifest has a problem any more", since)


def test_a_directory_that_empties_all_at_once_removes_nothing(shared: tuple[Up, Path]) -> None:
    up, directory = shared
    since = len(up.said)
    (directory / "manifests").rename(directory / "away")
    (directory / "manifests").mkdir()
    try:
        up.wait_for("declares nothing any more", since)
        assert up.post("first") == 202
    finally:
        (directory / "manifests").rmdir()
        (directory / "away").rename(directory / "manifests")


def test_a_manifest_whose_link_leads_nowhere_removes_nothing_and_its_endpoint_comes_back_as_it_was(
    shared: tuple[Up, Path],
) -> None:
    up, directory = shared
    manifest, target = directory / "manifests" / "linked.yaml", directory / "target.yaml"
    target.write_text(ENDPOINT.format(name="linked"))
    manifest.symlink_to(target)
    up.wait_for("endpoint shop/linked added")
    since = len(up.said)
    target.rename(directory / "away.yaml")
    other = directory / "manifests" / "other.yaml"
    write(other, ENDPOINT.format(name="other"))
    up.wait_for("endpoint shop/other added", since)
    up.wait_for(r"linked\.yaml:1: the file cannot be read: No such file or directory", since)
    assert up.post("linked") == 202
    (directory / "away.yaml").rename(target)
    other.unlink()
    up.wait_for("no manifest has a problem any more", since)
    manifest.unlink()
    up.wait_for("endpoint shop/linked removed", since)
    assert not [line for line in up.said[since:] if "linked added" in line or "linked changed" in line]


@pytest.mark.parametrize("name", ["kapsel_receiver", "kapsel_deliverer", "kapsel_attestor", "kapsel_console"])
def test_a_killed_component_is_started_again_aloud(shared: tuple[Up, Path], name: str) -> None:
    up, _ = shared
    since = len(up.said)
    pid = up.pid_of(name)
    os.kill(pid, signal.SIGKILL)
    component = name.removeprefix("kapsel_")
    up.wait_for(f"{component} was killed by SIGKILL; starting it again", since)
    up.wait_for(f"{component} is back", since)
    assert up.pid_of(name) != pid
    assert up.post("first") == 202


def test_a_killed_postgres_is_started_again_and_webhooks_flow(shared: tuple[Up, Path]) -> None:
    up, _ = shared
    since = len(up.said)
    os.kill(up.pid_of("postgres"), signal.SIGKILL)
    up.wait_for("postgres was killed by SIGKILL; starting it again", since)
    up.wait_for("postgres is back", since)
    wait_until(lambda: up.post("first") == 202, "webhooks are taken again")


def test_ctrl_c_drains_and_the_data_is_there_the_next_time() -> None:
    with place() as directory:
        first = Up(directory / "manifests", directory / "data").ready()
        by_id = re.findall(r"/ingest/[0-9a-f-]{36}", first.text)
        assert first.post("first") == 202
        assert first.stop(signal.SIGINT) == 0
        assert not (directory / "data" / "up.json").exists()
        assert "Traceback" not in first.text
        second = Up(directory / "manifests", directory / "data").ready()
        try:
            assert re.findall(r"/ingest/[0-9a-f-]{36}", second.text) == by_id
        finally:
            assert second.stop() == 0


@pytest.mark.parametrize(
    ("during", "number"),
    [
        *(("imports", number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        *(("initdb", number) for number in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_who_ends_a_first_start_waits_for_no_database_and_the_next_start_makes_one(
    during: str, number: signal.Signals
) -> None:
    with place() as directory, contextlib.ExitStack() as stack:
        first = Up(directory / "manifests", directory / "data")
        stack.callback(first.kill)
        initdb = psutil.Process(first.await_child("initdb"))
        initdb.suspend()  # it would take until somebody lets it go on
        if during == "initdb":
            first.await_child("kapsel_receiver")
        started = psutil.Process(first.process.pid).children(recursive=True)
        assert first.stop(number, 60) in ((0,) if during == "initdb" else (0, 130))  # as the imports are through
        assert left_of(started) == []
        assert not (directory / "data" / "postgres").exists()
        assert "Traceback" not in first.text
        second = Up(directory / "manifests", directory / "data")
        stack.callback(second.stop)
        assert second.ready().post("first") == 202


def test_who_ends_a_first_start_while_it_migrates_leaves_no_process_and_the_next_start_goes_on() -> None:
    with place() as directory, contextlib.ExitStack() as stack:
        first = Up(directory / "manifests", directory / "data")
        stack.callback(first.kill)
        session = psutil.Process(first.await_child("[local]"))  # of Postgres: who comes to it first migrates
        session.suspend()
        started = psutil.Process(first.process.pid).children(recursive=True)
        first.process.send_signal(signal.SIGTERM)
        first.wait_for("finishing what is under way")
        session.resume()
        assert first.process.wait(60) == 0, first.text
        assert left_of(started) == []
        assert "Traceback" not in first.text
        second = Up(directory / "manifests", directory / "data")
        stack.callback(second.stop)
        assert second.ready().post("first") == 202


def test_the_children_of_a_killed_supervisor_end_and_the_next_start_works() -> None:
    with place() as directory:
        first = Up(directory / "manifests", directory / "data").ready()
        children = [first.pid_of(name) for name in ("postgres", "kapsel_receiver", "kapsel_attestor")]
        first.kill()
        second = Up(directory / "manifests", directory / "data")
        try:
            second.ready()
            assert second.post("first") == 202
            wait_until(lambda: not any(map(is_alive, children)), "the children of the first are gone")
        finally:
            assert second.stop() == 0

"""The receiver checks of examples/gossip, as destinations of a real `kapsel up`: each notices that the log was forked.

The fork is what happens to people: a machine is restored as a whole, the fence beside the data included, and goes on.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kapsel_verifier.note import Checkpoint, Note, VerifierKey

from .test_cli_up_running import Up, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples" / "gossip"
ORIGIN = "log.test/gossip"
PROGRAMS = {"python": sys.executable, "go": "go", "javascript": "node"}
PACKAGES = {"go": "golang-go", "javascript": "nodejs"}
DEADLINE = 180.0

pytestmark = pytest.mark.timeout(900)  # three starts of everything, on a machine that may be busy

MANIFESTS = """\
apiVersion: kapsel.dev/v1alpha1
kind: Relay
metadata: {name: main, namespace: shop}
spec:
  egress: {allowedCIDRs: [127.0.0.1/32], allowHTTP: true}
---
apiVersion: kapsel.dev/v1alpha1
kind: AttestationLog
metadata: {name: log, namespace: shop}
spec: {origin: log.test/gossip, publication: {interval: 1s}}
---
apiVersion: v1
kind: Secret
metadata: {name: tokens, namespace: shop}
stringData: {token: let-me-in}
---
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {name: orders, namespace: shop}
spec:
  verification:
    bearer:
      secretRef: {name: tokens}
  destinations:
"""


class Console(ThreadingHTTPServer):
    """One address of the console for all its lives: it sends whoever asks on to where that is just now."""

    now = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Onwards)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Onwards(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(307)
        self.send_header("Location", self.server.now + self.path)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Receiver:
    """A destination in some language, and what it has said."""

    def __init__(self, language: str, command: list[str], kept: Path) -> None:
        self.language = language
        self.kept = kept
        self.said: list[str] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        wait_until(lambda: bool(self.said) or self._process.poll() is not None, f"{language} listens", DEADLINE)
        assert "".join(self.said[:1]).startswith("listening on "), self.said
        self.port = int(self.said[0].split()[-1])

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self.said.append(line.rstrip("\n"))

    def forks(self) -> list[str]:
        return [json.loads(line.removeprefix("FORK ")) for line in self.said if line.startswith("FORK ")]

    def proven(self) -> list[int]:
        """The sizes of the heads that were compared, and fine."""
        return [int(line.split()[1]) for line in self.said if line.startswith("ok ")]

    def size(self) -> int:
        """The size of the last checkpoint that was kept."""
        return Checkpoint.parse(Note.parse(self.kept.read_bytes()).text).tree_size if self.kept.exists() else -1

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)


def command_of(language: str, place: Path) -> list[str] | None:
    """Return how a check is run; None if this machine has not what it takes."""
    program = shutil.which(PROGRAMS[language])
    if program is None:
        return None
    match language:
        case "go":
            built = place / "gossip"
            subprocess.run([program, "build", "-o", str(built), "gossip.go"], cwd=EXAMPLES / "go", check=True)
            return [str(built)]
        case "javascript":
            return [program, str(EXAMPLES / "javascript" / "gossip.mjs")]
        case _:
            return [program, str(EXAMPLES / "python" / "gossip.py")]


class Story:
    """A log that grows, and then is restored from a copy: what each receiver saw of it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.console = Console()
        self.receivers: dict[str, Receiver] = {}
        self.copied_size = 0
        self.vkey = ""
        self._running: Up | None = None

    def tell(self) -> None:
        (self.place / "manifests").mkdir()
        self._write(MANIFESTS + "  - {name: nobody, url: 'http://127.0.0.1:9/', suspend: true}\n")
        # Which key is the log's: a destination has it from whoever runs the log, and pins it.
        up = self._up()
        with urllib.request.urlopen(f"{self.console.url}/api/v1/attestation/keys") as answer:
            self.vkey = json.load(answer)["keys"][0]["vkey"]
        for language in PROGRAMS:
            command = command_of(language, self.place)
            if command is not None:
                kept = self.place / f"{language}.checkpoint"
                made = Receiver(language, [*command, self.vkey, self.console.url, str(kept)], kept)
                self.receivers[language] = made
        self._write(
            MANIFESTS
            + "".join(
                f"  - {{name: {one.language}, url: 'http://127.0.0.1:{one.port}/'}}\n"
                for one in self.receivers.values()
            )
        )
        self._grow(up, lambda: all(len(set(one.proven())) >= 2 for one in self.receivers.values()))
        self._end(up)

        self._copy("before", "data")
        (fence,) = self.place.glob("before.fence/*.json")
        self.copied_size = json.loads(fence.read_text())["tree_size"]
        up = self._up()
        self._grow(up, lambda: all(one.size() > self.copied_size for one in self.receivers.values()))
        self._end(up)
        assert [one.forks() for one in self.receivers.values()] == [[] for _ in self.receivers]

        self._copy("data", "before")
        up = self._up()
        self._grow(up, lambda: all(one.forks() for one in self.receivers.values()))
        self._end(up)

    def _write(self, text: str) -> None:
        new = self.place / "new.yaml"
        new.write_text(text)
        new.rename(self.place / "manifests" / "all.yaml")

    def _up(self) -> Up:
        up = self._running = Up(self.place / "manifests", self.place / "data")
        started = "all processes are ready"
        wait_until(lambda: started in up.text or up.process.poll() is not None, "it starts", DEADLINE)
        assert started in up.text, up.text
        self.console.now = up.ready().urls["console"]
        return up

    def _end(self, up: Up) -> None:
        assert up.stop() == 0, up.text

    def _grow(self, up: Up, until: Callable[[], bool]) -> None:
        """Send webhooks until something is the case."""
        deadline = time.monotonic() + DEADLINE
        while not until():
            assert time.monotonic() < deadline, {one.language: one.said[-5:] for one in self.receivers.values()}
            assert up.post("orders") == 202
            time.sleep(0.3)

    def _copy(self, to: str, source: str) -> None:
        """Put a copy of the whole machine aside, or back: the data, and what stands beside it."""
        for path in list(self.place.glob(f"{to}*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in list(self.place.glob(f"{source}*")):
            # As backups do it: with owners, since Postgres may run as a user of its own.
            subprocess.run(["cp", "-a", path, self.place / (to + path.name.removeprefix(source))], check=True)

    def end(self) -> None:
        if self._running is not None:
            self._running.stop()
        for receiver in self.receivers.values():
            receiver.stop()
        self.console.shutdown()
        self.console.server_close()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    told = Story(tmp_path_factory.mktemp("gossip"))
    try:
        told.tell()
        yield told
    finally:
        told.end()


@pytest.mark.parametrize("language", list(PROGRAMS))
def test_a_destination_follows_a_log_and_shouts_when_it_is_forked(story: Story, language: str) -> None:
    receiver = story.receivers.get(language)
    if receiver is None:
        missing = f"{PROGRAMS[language]} is not installed; apt-get install {PACKAGES[language]} lets it run this check"
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing)
    proven = receiver.proven()
    assert max(proven) > story.copied_size
    assert len(set(proven)) >= 3, proven  # heads of several sizes were compared, and fine
    # Both heads are signed by the log, and no one log can have both: whoever holds the key's name can see that.
    evidence = receiver.forks()[0]
    first, _, second = evidence.partition(f"\n\n{ORIGIN}\n")
    notes = [Note.parse(first + "\n"), Note.parse(f"{ORIGIN}\n{second}")]
    assert Note.parse(receiver.kept.read_bytes()).text == notes[0].text  # the last one that was proven is still kept
    for note in notes:
        note.verify([VerifierKey.parse(story.vkey)])

"""A log small enough to hash it whole, and witnesses as processes of their own."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nacl.signing import SigningKey

from kapsel_tlog.prover import consistency_spans
from kapsel_verifier.add_checkpoint import AddCheckpoint
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.merkle import leaf_hash, root_from_leaves
from kapsel_verifier.note import Checkpoint, VerifierKey

DEADLINE = 240.0  # seconds; far more than anything here needs
KAPSEL = (sys.executable, "-P", "-m", "kapsel_cli")


class SmallLog:
    """A log over leaves `0`, `1`, ...; another `history` has other leaves from its third on."""

    def __init__(self, origin: str = "log.example/shop", seed: bytes = bytes(32)) -> None:
        self._secret = SigningKey(seed)
        self.origin = origin
        self.key = VerifierKey(origin, bytes(self._secret.verify_key))

    def leaves(self, size: int, history: str = "") -> list[bytes]:
        return [leaf_hash(str(i).encode() + (history.encode() if i > 1 else b"")) for i in range(size)]

    def signed(self, text: str) -> str:
        return f"{text}\n{self.key.line(self._secret.sign(text.encode()).signature)}"

    def checkpoint(self, size: int, history: str = "") -> str:
        return self.signed(Checkpoint(self.origin, size, root_from_leaves(self.leaves(size, history))).text())

    def request(self, old: int, new: int, history: str = "") -> AddCheckpoint:
        leaves = self.leaves(new, history)
        proof = tuple(root_from_leaves(leaves[span.begin : span.end]) for span in consistency_spans(old, new))
        return AddCheckpoint(old, proof, self.checkpoint(new, history))


@dataclass
class Answer:
    status: int
    body: str
    content_type: str


@dataclass
class WitnessProcess:
    """One witness: started from its directory, as often as one likes."""

    directory: Path
    log_lines: list[dict[str, object]] = field(default_factory=list)
    popen: "subprocess.Popen[str] | None" = None
    url: str = ""
    health_url: str = ""
    key: WitnessKey = field(init=False)

    def make(self, name: str) -> None:
        done = subprocess.run(
            [*KAPSEL, "witness", "--directory", str(self.directory), "--name", name, "--print-key"],
            capture_output=True, text=True, timeout=DEADLINE, check=True,
        )  # fmt: skip
        self.key = WitnessKey.parse(done.stdout.strip())

    def start(self, logs: Sequence[VerifierKey], *, health: str = "127.0.0.1:0", listen: str = "127.0.0.1:0") -> None:
        options = [word for key in logs for word in ("--log", key.encode())]
        self.popen = subprocess.Popen(
            [*KAPSEL, "witness", "--directory", str(self.directory), "--listen", listen, "--health", health, *options],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            if not line.startswith("{"):
                assert line == f"witness {self.key.encode()}\n"
                continue
            told = json.loads(line)
            self.log_lines.append(told)
            if told["message"] == "witnessing":
                self.url = f"http://127.0.0.1:{told['port']}"
                self.health_url = f"http://127.0.0.1:{told['health_port']}"
                return
        raise AssertionError(self.log_lines)

    def ask(self, request: AddCheckpoint | bytes) -> Answer:
        body = request if isinstance(request, bytes) else request.encode()
        return http("POST", f"{self.url}/add-checkpoint", body)

    def view(self, origin_hash: str) -> Answer:
        return http("GET", f"{self.url}/{origin_hash}/checkpoint")

    def metrics(self) -> str:
        return http("GET", f"{self.health_url}/metrics").body

    def kill(self) -> None:
        assert self.popen is not None
        self.popen.kill()
        self.popen.communicate(timeout=DEADLINE)

    def close(self) -> None:
        """Kill it if it runs, and give back what it held if it has ended."""
        if self.popen is not None and self.popen.poll() is None:
            self.kill()
        elif self.popen is not None and self.popen.stderr is not None:
            self.popen.stderr.close()

    def end(self) -> tuple[int, str]:
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)
        _, rest = self.popen.communicate(timeout=DEADLINE)
        return self.popen.returncode, rest


def http(method: str, url: str, body: bytes | None = None) -> Answer:
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as found:
            return Answer(found.status, found.read().decode(), found.headers["Content-Type"])
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), error.headers.get("Content-Type", ""))

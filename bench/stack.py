"""What is measured: a real `kapsel up` on a directory of its own, and the load generator that drives it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from kapsel_cli.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
MANIFESTS = HERE / "manifests"
SINK = "127.0.0.1:9900"
SECRET = "bench-secret"
COMPONENTS = ("receiver", "deliverer", "attestor", "console")

Target = dict[str, Any]  # what the load generator sends and to whom: bench/load/target.go


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A system that runs: what webhooks are sent to, where it delivers them, and its processes by name."""

    target: Target
    sink: str
    processes: dict[str, list[int]]


class Stack:
    """One `kapsel up`, started on entry and drained on exit."""

    def __init__(
        self,
        data_dir: Path,
        workers: int,
        *,
        manifests: Path = MANIFESTS,
        endpoint: str = "bench/bench",
        checkout: Path | None = None,
    ) -> None:
        """Run what is installed, or the code of a checkout in its place."""
        self.data_dir = data_dir
        self._environment = dict(os.environ)
        if checkout is not None:
            packages = {str(found.parent.parent.resolve()) for found in checkout.glob("*/kapsel_*/__init__.py")}
            self._environment["PYTHONPATH"] = os.pathsep.join(sorted(packages))
        self._endpoint = endpoint
        self._log = (data_dir.parent / "up.log").open("ab")
        self._command = [
            *(sys.executable, "-m", "kapsel_cli", "up", str(manifests)),
            *("--data-dir", str(data_dir), "--port", "0", "--workers", str(workers)),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.started_in = 0.0  # seconds from the start to the first accepted webhook
        self.ingest = ""

    def __enter__(self) -> Self:
        start = time.monotonic()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=self._environment
        )
        deadline = start + 300
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("kapsel up did not come up:\n" + Path(self._log.name).read_text())
            time.sleep(0.02)
        self.started_in = time.monotonic() - start
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def _accepts(self) -> bool:
        with suppress(FileNotFoundError, json.JSONDecodeError, KeyError):
            self.ingest = json.loads((self.data_dir / "up.json").read_text())["ingest"]
        if not self.ingest:
            return False
        try:
            with urllib.request.urlopen(f"{self.ingest}/ingest/{self._endpoint}", timeout=1) as answer:
                return bool(answer.status < 300)
        except (OSError, urllib.error.HTTPError):
            return False

    @property
    def database_url(self) -> str:
        """Return where the embedded Postgres of this stack listens."""
        return EmbeddedPostgres(self.data_dir).url

    def processes(self) -> dict[str, list[int]]:
        """Return the process ids of each component, and of Postgres."""
        found: dict[str, list[int]] = {}
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                line = " ".join(child.cmdline())
                for name in COMPONENTS:
                    if f"kapsel_{name}" in line:
                        found.setdefault(name, []).append(child.pid)
                if "/bin/postgres -D" in line:
                    found["postgres"] = [child.pid]
        return found

    def rss(self) -> dict[str, float]:
        """Return the resident memory of each component's largest process, in MiB."""
        return {
            name: max(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
            for name, pids in self.processes().items()
        }


def free_ports(count: int) -> list[int]:
    """Return ports that the kernel says are free, for programs that cannot ask for one themselves."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Load:
    """The load generator (bench/load, in Go), built once."""

    def __init__(self, work: Path) -> None:
        if shutil.which("go") is None:
            raise SystemExit("the load generator needs Go: install it (https://go.dev/dl/) and run make bench again")
        self._work = work
        self._program = work / "load"
        build = ["go", "build", "-o", str(self._program), "."]
        subprocess.run(build, cwd=HERE / "load", check=True, env={**os.environ, "GOFLAGS": "-mod=mod"})

    def run(self, url: str, *flags: str, watch: dict[str, list[int]] | None = None) -> dict[str, Any]:
        """Drive kapsel at `url` and return the report."""
        return self.drive(kapsel_at(url), *flags, watch=watch)

    def drive(self, target: Target, *flags: str, watch: dict[str, list[int]] | None = None) -> dict[str, Any]:
        """Drive a target; return the report of the load generator: a summary with [min, median, max], and each run."""
        file = self._work / "target.json"
        file.write_text(json.dumps(target))
        report = self._work / "report.jsonl"
        report.unlink(missing_ok=True)
        watched = ",".join(f"{name}={pid}" for name, pids in (watch or {}).items() for pid in pids)
        command = [str(self._program), "-target", str(file), "-out", str(report), "-watch", watched, *flags]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(_failed(done))
        found: dict[str, Any] = json.loads(report.read_text())
        refused = found["summary"]["not_accepted"][2]
        if refused:
            first = next(result["first_error"] for result in found["results"] if result.get("first_error"))
            print(f"  note: {refused:.0f} requests were not accepted: {first}", file=sys.stderr)
        return found


def _failed(done: subprocess.CompletedProcess[str]) -> str:
    """Return in one sentence why the load generator ended, and what to do."""
    lines = done.stderr.strip().splitlines()
    why = lines[-1] if lines else f"it ended with {done.returncode} and said nothing"
    what = "end the program that listens there (ss -ltnp names it)" if "address already in use" in why else "mend that"
    return f"the load generator failed: {why}; {what} and run the bench again"


def kapsel_at(url: str) -> Target:
    """Return a target that is an endpoint of kapsel."""
    return signed_like_github("kapsel", url, {"Idempotency-Key": "$ID"}, accept=202)


def signed_like_github(name: str, url: str, headers: dict[str, str], *, accept: int) -> Target:
    """Return a target that takes webhooks with GitHub's signature."""
    return {
        "name": name,
        "method": "POST",
        "url": url,
        "headers": {"Content-Type": "application/json", **headers},
        "body": "$PAYLOAD",
        "accept": [accept],
        "sign": {"secret": SECRET, "content": "$BODY", "header": "X-Hub-Signature-256", "value": "sha256=$HEX"},
    }

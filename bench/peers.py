"""kapsel beside its peers, all in one run: python bench/peers.py [--rounds 3] [--only kapsel,convoy] [--quick].

Everything is the same for all: the load generator and its 64 connections, the sink, events of 1 KiB of JSON with
GitHub's signature, the embedded Postgres with fsync and synchronous_commit on. They are measured in turn, round after
round, so that what else the machine does falls on all. In each round each starts from nothing, twice: once to take
webhooks with no delivery running, and once to deliver them. Nothing else of theirs runs meanwhile.

Peers are built by Go and unpacked from Debian's packages once, into ~/.cache/kapsel-peers (or $KAPSEL_PEERS_CACHE). How
each is set up, and what its answer promises, is in the docstring of its module. kapsel's answer promises that Postgres
has the event and its delivery on disk; and kapsel de-duplicates, which peers are not asked to do.

Peers are those that package registries offer. Not here: Svix's server, which is not among Rust's packages, and
Hookdeck's Outpost, whose Go module the module proxy refused when this was written.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import peer_convoy
from rich.console import Console
from rich.table import Table
from run import keep, machine, spread
from stack import SINK, Load, Stack, Up, kapsel_at

Round = dict[str, float]  # the figures of one system in one round

# A file has no width of its own, and lines of figures are not to be broken in it.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long each part of a round takes."""

    seconds: int  # of what runs for a time
    events: int  # end to end
    warm_up: int  # events that are not measured


FULL: Final = Size(seconds=10, events=5_000, warm_up=500)
QUICK: Final = Size(seconds=3, events=500, warm_up=100)


@contextmanager
def kapsel(directory: Path, *, delivering: bool) -> Iterator[Up]:
    """Run kapsel as `kapsel up` does, one receiver and one deliverer; a suspended destination gets no deliveries."""
    with Stack(directory / "data", 1) as stack:
        endpoint = "bench" if delivering else "parked"
        target = kapsel_at(f"{stack.ingest}/ingest/bench/{endpoint}")
        yield Up(target=target, sink=SINK, processes=stack.processes())


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Something to measure: what to get ready before the first round, and how to start it."""

    prepare: Callable[[], Mapping[str, str]]  # returns versions
    up: Callable[..., AbstractContextManager[Up]]


SYSTEMS: Final = {
    "kapsel": System(prepare=lambda: {"kapsel": version("kapsel")}, up=kapsel),
    "convoy": System(prepare=peer_convoy.prepare, up=peer_convoy.up),
}


def measure(load: Load, system: System, size: Size) -> Round:
    """Start a system twice, drive it, and return the figures of one round."""
    timed = f"{size.seconds}s"
    warm_up = ("-warmup", str(size.warm_up))
    with tempfile.TemporaryDirectory(prefix="kapsel-peers-") as directory:
        ingesting, delivering = Path(directory, "ingesting"), Path(directory, "delivering")
        ingesting.mkdir()
        delivering.mkdir()
        with system.up(ingesting, delivering=False) as up:
            full = once(load, up, "-mode", "closed", "-duration", timed, *warm_up)
            paced = once(load, up, "-mode", "open", "-rate", "500", "-duration", timed)
        with system.up(delivering, delivering=True) as up:
            sunk = ("-sink", up.sink, "-drain", "5m")
            through = once(load, up, "-mode", "closed", "-count", str(size.events), *sunk, *warm_up)
            tries = once(load, up, "-mode", "open", "-rate", "300", "-duration", timed, *sunk)
    return figures(full, paced, through, tries)


def once(load: Load, up: Up, *flags: str) -> dict[str, Any]:
    """Drive a system once, and return what the load generator saw."""
    report = load.drive(up.target, "-reps", "1", "-conns", "64", "-payload", "1024", *flags, watch=up.processes)
    found: dict[str, Any] = report["results"][0]
    return found


def figures(
    full: Mapping[str, Any], paced: Mapping[str, Any], through: Mapping[str, Any], tries: Mapping[str, Any]
) -> Round:
    """Return the figures of a round: of ingest at saturation and at 500/s, of delivery at saturation and at 300/s."""
    runs = (full, paced, through, tries)
    spent = sum(usage["cpu_s"] for usage in through["usage"].values())
    return {
        "ingest, no delivery running, events/s": full["accepted_per_s"],
        "answer at 500/s, p50, ms": paced["accept_ms"]["p50"],
        "answer at 500/s, p99, ms": paced["accept_ms"]["p99"],
        "end to end, deliveries/s": through["delivered_per_s"],
        "end to end, CPU an event, µs": spent / through["accepted"] * 1e6,
        "first try at 300/s, p50, ms": tries["delivery_ms"]["p50"],
        "first try at 300/s, p99, ms": tries["delivery_ms"]["p99"],
        "not yet delivered when 300/s ended": tries.get("backlog_when_sending_ended", 0),
        "webhooks not accepted": sum(run["refused"] + run["failed"] for run in runs),
        "events not delivered": sum(run.get("missing", 0) for run in (through, tries)),
        "deliveries beyond the first": sum(run.get("duplicates", 0) for run in (through, tries)),
        "CPU that other programs took, %": 100 * max(run["other_cpu_share"] for run in runs),
    }


def summary(rounds: Sequence[Round]) -> dict[str, tuple[float, ...]]:
    """Return the smallest, the median and the largest of each figure."""
    return {name: tuple(spread([one[name] for one in rounds])) for name in rounds[0]}


def cell(spread: Sequence[float]) -> str:
    """Return how a figure is shown: with a decimal where that says something."""
    decimals = 0 if max(spread) >= 100 or all(value == int(value) for value in spread) else 1
    return " / ".join(f"{value:,.{decimals}f}" for value in spread)


def show(summaries: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Print a line for each figure and a column for each system."""
    table = Table(title="min / median / max of the rounds", title_justify="left", box=None, padding=(0, 3, 0, 0))
    table.add_column("", no_wrap=True)
    for name in summaries:
        table.add_column(name, justify="right")
    for figure in next(iter(summaries.values())):
        table.add_row(figure, *(cell(found[figure]) for found in summaries.values()))
    out.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SYSTEMS), help=f"some of {', '.join(SYSTEMS)}")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in SYSTEMS]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(SYSTEMS)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    # A termination must end what runs, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size, rounds = (QUICK, 1) if options.quick else (FULL, options.rounds)
    versions: dict[str, str] = {}
    for name in chosen:
        versions |= SYSTEMS[name].prepare()
    report: dict[str, Any] = {"machine": machine(), "versions": versions, "size": asdict(size)}
    out.print("load average", *(f"{load:.1f}" for load in report["machine"]["load_average"]), versions)
    found: dict[str, list[Round]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory(prefix="kapsel-peers-") as directory:
        generator = Load(Path(directory))
        for turn in range(rounds):
            for name in chosen:
                out.print(f"round {turn + 1} of {rounds}: {name}")
                found[name].append(measure(generator, SYSTEMS[name], size))
    report["rounds"] = found
    report["summary"] = {name: summary(each) for name, each in found.items()}
    show(report["summary"])
    keep(report, "peers-")


if __name__ == "__main__":
    main()

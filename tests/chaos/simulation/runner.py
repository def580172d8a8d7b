"""Runs seeds in processes of their own, as many at once as there are cores, and tells what came of each."""

import argparse
import faulthandler
import gc
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing.connection import Connection, wait
from pathlib import Path

from simulation import bugs
from simulation.clock import real_monotonic
from simulation.oracle import judge
from simulation.scenario import scenario
from simulation.server import Server
from simulation.world import World

SEEDS_FILE = Path(__file__).parent.parent / "seeds.txt"
DEADLINE = 600  # real seconds of one run, after which it says where it hangs

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one run."""

    seed: int
    bug: str | None
    problems: list[str]
    digest: str
    seconds: float  # real ones
    virtual: float
    statements: int
    tail: str = ""
    trace: tuple[str, ...] = ()


def once(server: Server, database: str, seed: int, bug: str | None, verbose: bool) -> Verdict:
    """Run one seed in this process, which is then used up."""
    begun = real_monotonic()
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    with tempfile.TemporaryDirectory(dir=server.place) as directory:
        if bug is not None:
            bugs.plant(bug)
        world = World(scenario(seed), server.socket_directory, database, Path(directory) / "fence.json")
        try:
            run = world.go()

            async def judged() -> list[str]:
                connection = await world.connection()
                return await judge(run, connection)

            problems = world.loop.run_until_complete(judged())
        except Exception:  # noqa: BLE001 - a run that breaks off has found something
            run, problems = world.run, [*world.run.problems, traceback.format_exc()]
        tail = ""
        if verbose:
            lines = [
                f"{at:.3f} {life} {record.levelname} {record.getMessage()} {getattr(record, 'destination', '')}"
                for at, life, record in run.logs
            ]
            lines += [f"{count} x {name}" for name, count in run.proxy.statements.most_common(30)]
            tail = "\n".join([*lines, *(f"fault {at:.3f} {what}" for at, what in run.proxy.faults)])
    return Verdict(
        seed=seed,
        bug=bug,
        problems=problems,
        digest=run.digest(),
        seconds=real_monotonic() - begun,
        virtual=world.clock.elapsed,
        statements=sum(run.proxy.statements.values()),
        tail=tail,
        trace=tuple(run.proxy.trace),
    )


def _child(pipe: Connection, server: Server, database: str, seed: int, bug: str | None, verbose: bool) -> None:
    gc.disable()  # it lives for a moment; and the dead of a run are never to be finalised
    try:
        pipe.send(once(server, database, seed, bug, verbose))
    except BaseException:  # noqa: BLE001 - told, not lost
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def run_all(
    server: Server, work: Iterable[tuple[int, str | None]], jobs: int, *, verbose: bool = False
) -> Iterator[Verdict]:
    """Run (seed, planted bug) pairs, `jobs` at a time; yield verdicts as they come."""
    waiting = iter(work)
    free = [f"chaos_{number}" for number in range(jobs)]
    running: dict[Connection, tuple[str, int, str | None, object]] = {}
    while True:
        while free and (pair := next(waiting, None)) is not None:
            database = free.pop()
            server.empty(database)
            ours, theirs = _FORK.Pipe(duplex=False)
            process = _FORK.Process(target=_child, args=(theirs, server, database, *pair, verbose))
            process.start()
            theirs.close()
            running[ours] = (database, *pair, process)
        if not running:
            return
        for ready in wait(list(running)):
            database, seed, bug, process = running.pop(ready)  # type: ignore[index]
            try:
                yield ready.recv()  # type: ignore[union-attr]
            except EOFError:
                yield Verdict(
                    seed=seed, bug=bug, problems=["it died, or hung"], digest="", seconds=0, virtual=0, statements=0
                )
            process.join()  # type: ignore[attr-defined]
            free.append(database)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description="deterministic fault testing; docs/chaos.md")
    parser.add_argument("--seeds", type=int, default=0, help="run so many seeds, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, action="append", default=[], help="run this one")
    parser.add_argument("--kept", action="store_true", help="run the seeds of seeds.txt")
    parser.add_argument("--bugs", action="store_true", help="plant each bug, and say how many seeds it took to find it")
    parser.add_argument("--bug", action="append", default=[], choices=sorted(bugs.BUGS), help="plant this one")
    parser.add_argument("--most", type=int, default=60, help="seeds after which a planted bug counts as not found")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument(
        "--twice", action="store_true", help="run each seed twice, and compare what is the same each time"
    )
    options = parser.parse_args()
    with Server() as server:
        for number in range(options.jobs):
            server.make(f"chaos_{number}")
        gc.freeze()
        if options.bugs or options.bug:
            return _hunt(server, options)
        return _seeds(server, options)


def _seeds(server: Server, options: argparse.Namespace) -> int:
    seeds = [*options.seed, *range(options.first, options.first + options.seeds)]
    if options.kept:
        seeds += kept()
    begun, bad, traces = real_monotonic(), list[int](), dict[int, tuple[str, ...]]()
    work = [(seed, None) for seed in seeds for _ in range(2 if options.twice else 1)]
    for verdict in run_all(server, work, options.jobs, verbose=options.verbose):
        problems = list(verdict.problems)
        is_serial = scenario(verdict.seed).serial
        first = traces.setdefault(verdict.seed, verdict.trace)
        if options.twice and is_serial and first != verdict.trace:
            pairs = zip_longest(first, verdict.trace)
            place, (one, other) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
            problems.append(f"two runs of it differ from line {place} on: {one} | {other}")
            problems += [f"before that: {line}" for line in first[max(0, place - 5) : place]]
        if options.verbose:
            print(verdict.tail)
        if sys.stderr.isatty() or options.progress:
            print(f"{verdict.seed} {verdict.seconds:.1f}", end=" ", file=sys.stderr, flush=True)
        if problems:
            bad.append(verdict.seed)
            print(f"seed {verdict.seed}: {len(problems)} problems; again: make chaos SEED={verdict.seed}")
            for problem in problems[:10]:
                print(f"    {problem}")
        elif len(work) < 10 or options.verbose:
            print(
                f"seed {verdict.seed}: good; {verdict.virtual:.0f} virtual seconds in {verdict.seconds:.1f}, "
                f"{verdict.statements} statements, {verdict.digest}"
            )
        sys.stdout.flush()
    print(f"{len(work)} runs in {real_monotonic() - begun:.0f} s: {len(set(bad))} bad seeds {sorted(set(bad)) or ''}")
    return 1 if bad or not work else 0


def kept() -> list[int]:
    """Return the seeds that once found something."""
    lines = SEEDS_FILE.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def _hunt(server: Server, options: argparse.Namespace) -> int:
    """Plant each bug in seed after seed until it is found."""
    begun, wanted = real_monotonic(), options.bug or sorted(bugs.BUGS)
    found, runs = dict[str, str](), Counter[str]()

    def work() -> Iterator[tuple[int, str]]:
        for turn in range(options.most):
            for bug in wanted:
                seeds = [*bugs.BUGS[bug].seeds, *range(options.first, options.first + options.most)]
                if bug not in found:
                    yield seeds[turn], bug

    for verdict in run_all(server, work(), options.jobs):
        bug = str(verdict.bug)
        runs[bug] += 1
        if not verdict.digest:  # not even planted: the code has moved on, and the bug has to follow
            print(f"{bug}: {verdict.problems[0]}", flush=True)
        elif verdict.problems and bug not in found:
            found[bug] = f"run {runs[bug]}, seed {verdict.seed}: {verdict.problems[0].splitlines()[-1][:200]}"
            print(f"{bug}: {found[bug]}", flush=True)
    missed = [bug for bug in wanted if bug not in found]
    for bug in missed:
        print(f"{bug}: NOT FOUND in {runs[bug]} runs", flush=True)
    took = f"{sum(runs.values())} runs, {real_monotonic() - begun:.0f} s"
    print(f"{len(found)} of {len(wanted)} planted bugs found in {took}")
    return 1 if missed else 0

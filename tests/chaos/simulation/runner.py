"""Runs seeds in processes of their own, one on each Postgres, and tells what came of each."""

import argparse
import faulthandler
import gc
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from asyncio import all_tasks
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from simulation import bugs
from simulation.clock import real_monotonic
from simulation.oracle import judge
from simulation.scenario import scenario
from simulation.server import Server
from simulation.world import World

SEEDS_FILE = Path(__file__).parent.parent / "seeds.txt"
WORK = 60.0  # seconds of CPU of one run, after which it says where it is; most take one or two
OTHER_SEEDS = 20  # in which a planted bug is looked for that its own seed does not find any more
DEADLINE = 540  # real seconds, after which it does the same; how busy the machine is decides nothing before

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one run."""

    seed: int
    bug: str | None
    problems: list[str]
    trace: tuple[str, ...] = ()
    digest: str = ""
    seconds: float = 0.0  # real ones
    cpu: float = 0.0  # without those of Postgres
    virtual: float = 0.0
    statements: int = 0
    tail: str = ""


def once(server: Server, seed: int, bug: str | None, verbose: bool, pipe: Connection) -> Verdict:
    """Run one seed in this process, which is then used up."""
    begun = real_monotonic()
    with tempfile.TemporaryDirectory(dir=server.place) as directory:
        if bug is not None:
            bugs.plant(bug)
        world = World(scenario(seed), server.socket_directory, server.renew(), Path(directory) / "fence.json")

        def late(*_: object) -> None:
            pipe.send(Verdict(seed=seed, bug=bug, problems=[_stacks(world)], tail=_tail(world) if verbose else ""))
            os._exit(0)

        signal.signal(signal.SIGALRM, late)
        signal.signal(signal.SIGPROF, late)
        signal.alarm(DEADLINE)
        signal.setitimer(signal.ITIMER_PROF, WORK)
        try:
            run = world.go()

            async def judged() -> list[str]:
                connection = await world.connection()
                return await judge(run, connection)

            problems = world.loop.run_until_complete(judged())
            run.proxy.backends.remember()
        except Exception:  # noqa: BLE001 - a run that breaks off has found something
            run, problems = world.run, [*world.run.problems, traceback.format_exc()]
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Verdict(
        seed=seed,
        bug=bug,
        problems=problems,
        trace=tuple(run.proxy.trace),
        digest=run.digest(),
        seconds=real_monotonic() - begun,
        cpu=sum(os.times()[:2]),
        virtual=world.clock.elapsed,
        statements=sum(run.proxy.statements.values()),
        tail=_tail(world) if verbose else "",
    )


def _stacks(world: World) -> str:
    """Say where everybody is in a run that hangs."""
    told = io.StringIO()
    told.write(
        f"it has not ended in {WORK:.0f} s of work or {DEADLINE} s; {world.clock.elapsed:.0f} virtual ones have "
    )
    told.write(f"passed, and the server was last asked for {world.proxy.asked!r}\n")
    traceback.print_stack(file=told)
    for task in all_tasks(world.loop):
        task.print_stack(file=told)
    return told.getvalue()


def _tail(world: World) -> str:
    run = world.run
    lines = [
        f"{at:.3f} {life} {record.levelname} {record.getMessage()} {getattr(record, 'destination', '')}"
        for at, life, record in run.logs
    ]
    lines += [f"{count} x {name}" for name, count in run.proxy.statements.most_common(30)]
    lines += [f"{told.at:.3f} somebody asked: {told}" for told in run.people.told]
    return "\n".join([*lines, *(f"fault {at:.3f} {what}" for at, what in run.proxy.faults)])


def _child(pipe: Connection, server: Server, seed: int, bug: str | None, verbose: bool) -> None:
    gc.disable()  # it lives for a moment; and the dead of a run are never to be finalised
    faulthandler.dump_traceback_later(DEADLINE + 60, exit=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        pipe.send(once(server, seed, bug, verbose, pipe))
    except BaseException:  # noqa: BLE001 - told, not lost
        pipe.send(Verdict(seed=seed, bug=bug, problems=[traceback.format_exc()]))
    finally:
        sys.stderr.flush()
        os._exit(0)


def run_all(
    servers: list[Server], work: Iterable[tuple[int, str | None]], *, verbose: bool = False
) -> Iterator[Verdict]:
    """Run (seed, planted bug) pairs, one at a time on each server; yield verdicts as they come."""
    waiting, free = iter(work), list(servers)
    running: dict[Any, tuple[Server, int, str | None, Any]] = {}
    while True:
        while free and (pair := next(waiting, None)) is not None:
            server = free.pop()
            ours, theirs = _FORK.Pipe(duplex=False)
            process = _FORK.Process(target=_child, args=(theirs, server, *pair, verbose))
            process.start()
            theirs.close()
            running[ours] = (server, *pair, process)
        if not running:
            return
        for ready in wait(list(running)):
            server, seed, bug, process = running.pop(ready)
            try:
                yield ready.recv()  # type: ignore[union-attr]
            except EOFError:
                yield Verdict(seed=seed, bug=bug, problems=["its process died"])
            process.join()
            free.append(server)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description="deterministic fault testing; docs/chaos.md")
    parser.add_argument("--seeds", type=int, default=0, help="run so many seeds, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, action="append", default=[], help="run this one")
    parser.add_argument("--kept", action="store_true", help="run the seeds of seeds.txt")
    parser.add_argument("--bugs", action="store_true", help="plant each bug in the seeds that find it")
    parser.add_argument("--bug", action="append", default=[], choices=sorted(bugs.BUGS), help="plant this one")
    parser.add_argument("--hunt", type=int, default=0, help="plant bugs in so many seeds, and list what each finds")
    parser.add_argument("--jobs", type=int, default=4, help="runs at once; part of what decides a run")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--twice", action="store_true", help="run each seed twice, and compare all that was asked")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the servers end
    with ExitStack() as stack:
        servers = [stack.enter_context(Server()) for _ in range(options.jobs)]
        gc.collect()
        gc.freeze()
        if options.hunt:
            return _hunt(servers, options)
        if options.bugs or options.bug:
            return _bugs(servers, options)
        return _seeds(servers, options)


def _seeds(servers: list[Server], options: argparse.Namespace) -> int:
    seeds = [*options.seed, *range(options.first, options.first + options.seeds)]
    if options.kept:
        seeds += kept()
    begun, bad, cpu, traces = real_monotonic(), set[int](), 0.0, dict[int, tuple[str, ...]]()
    statements = 0
    work = [(seed, None) for seed in seeds for _ in range(2 if options.twice else 1)]
    for verdict in run_all(servers, work, verbose=options.verbose):
        cpu += verdict.cpu
        statements += verdict.statements
        first = traces.setdefault(verdict.seed, verdict.trace if options.twice else ())
        problems = [*verdict.problems, *(_difference(first, verdict.trace) if options.twice else [])]
        if options.verbose:
            print(verdict.tail)
        if sys.stderr.isatty() or options.progress:
            print(f"{verdict.seed} {verdict.cpu:.1f}", end=" ", file=sys.stderr, flush=True)
        if problems:
            bad.add(verdict.seed)
            again = f"make chaos SEED={verdict.seed}"
            print(f"seed {verdict.seed}: {len(problems)} problems, {verdict.digest}; again: {again}")
            for problem in problems if options.verbose else problems[:10]:
                print(f"    {problem}")
        elif len(work) < 10 or options.verbose:
            print(
                f"seed {verdict.seed}: good; {verdict.virtual:.0f} virtual seconds in {verdict.seconds:.1f}, "
                f"{verdict.statements} statements, {verdict.digest}"
            )
        sys.stdout.flush()
    took = (
        f"{real_monotonic() - begun:.0f} s ({cpu:.0f} s of CPU, and {sum(map(Server.cpu, servers)):.0f} s of Postgres)"
    )
    took += f", {statements / max(1, len(work)):.0f} statements in each"
    print(f"{len(work)} runs in {took}: {len(bad)} bad seeds {sorted(bad) or ''}")
    return 1 if bad or not work else 0


def _difference(one: tuple[str, ...], other: tuple[str, ...]) -> list[str]:
    """Say where two runs of one seed part."""
    if one == other:
        return []
    pairs = enumerate(zip_longest(one, other))
    place, (first, second) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    told = [f"two runs of it differ from line {place} on: {first} | {second}"]
    return told + [f"before that: {line}" for line in one[max(0, place - 5) : place]]


def kept() -> list[int]:
    """Return the seeds that once found something."""
    lines = SEEDS_FILE.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def _bugs(servers: list[Server], options: argparse.Namespace) -> int:
    """Plant each bug in the seed that is known to find it, and see that the oracle says what it should.

    A change of the code may have moved that run, so what was not found is planted in others too.
    """
    wanted = options.bug or sorted(bugs.BUGS)
    among = {bug: bugs.seeds(bug, OTHER_SEEDS) for bug in wanted}
    begun, found = real_monotonic(), set[str]()
    known = ((bugs.BUGS[bug].seed, bug) for bug in wanted)
    others = ((seeds[n], bug) for n in range(OTHER_SEEDS) for bug, seeds in among.items() if bug not in found)
    for work in (known, others):
        for verdict in run_all(servers, work):
            bug = str(verdict.bug)
            if bug not in found:
                meant = [problem for problem in verdict.problems if bugs.BUGS[bug].says in problem]
                found.update([bug] if meant else [])
                said = meant[0] if meant else f"NOT FOUND: {verdict.problems[:3]}"
                print(f"{bug}, seed {verdict.seed}: {said}", flush=True)
    print(f"{len(found)} of {len(wanted)} planted bugs found in {real_monotonic() - begun:.0f} s")
    return 0 if len(found) == len(wanted) else 1


def _hunt(servers: list[Server], options: argparse.Namespace) -> int:
    """Plant bugs in many seeds: what finds which, for whoever writes the seeds down."""
    wanted = options.bug or sorted(bugs.BUGS)
    found = Counter[str]()
    among = {bug: [*options.seed, *bugs.seeds(bug, options.hunt, options.first)] for bug in wanted}

    def work() -> Iterator[tuple[int, str]]:
        for place in range(len(options.seed) + options.hunt):
            yield from ((seeds[place], bug) for bug, seeds in among.items() if not found[bug])

    for verdict in run_all(servers, work()):
        bug = str(verdict.bug)
        meant = sum(bugs.BUGS[bug].says in problem for problem in verdict.problems)
        found[bug] += bool(meant)
        print(f"{bug}, seed {verdict.seed}, {verdict.cpu:.1f} s: {meant} of {len(verdict.problems)}", flush=True)
        for problem in verdict.problems[:4]:
            print(f"    {problem.splitlines()[-1][:220]}", flush=True)
    print("\n".join(f"{bug}: found by {found[bug]} seeds" for bug in wanted))
    return 0

"""What a change saves or costs: two checkouts up at once, short runs in turn, and the CPU each process takes an event.

Run: python bench/paired.py OTHER-CHECKOUT [--rounds 6] [--events 2500]

Time by the clock says little on a machine that has other work to do; CPU time says more, and runs in turn meet the same
work. The other checkout needs no environment of its own: this one's is used, so both have the same packages.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from stack import COMPONENTS, SINK, Load, Stack

HERE = Path(__file__).parents[1]
URL = "{}/ingest/bench/bench"
PROCESSES = (*COMPONENTS, "postgres")


def once(load: Load, stack: Stack, events: int) -> dict[str, float]:
    """Send and deliver so many events as fast as they are taken; return deliveries/s, and µs of CPU an event."""
    flags = ("-mode", "closed", "-count", str(events), "-sink", SINK, "-drain", "5m", "-reps", "1")
    report = load.run(URL.format(stack.ingest), *flags, watch=stack.processes())
    usage = report["results"][0]["usage"]
    spent = {name: usage[name]["cpu_s"] / events * 1e6 for name in PROCESSES}
    return {**spent, "together": sum(spent.values()), "deliveries/s": report["summary"]["delivered_per_s"][1]}


def main() -> None:
    """Measure in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of kapsel: what there was before")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--events", type=int, default=2500, help="in each run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kapsel-paired-") as directory:
        work = Path(directory)
        load = Load(work)
        for name in ("before", "after"):
            (work / name).mkdir()
        with (
            Stack(work / "before" / "data", 1, checkout=asked.other) as before,
            Stack(work / "after" / "data", 1, checkout=HERE) as after,
        ):
            stacks = {"before": before, "after": after}
            found: dict[str, list[dict[str, float]]] = {name: [] for name in stacks}
            for stack in stacks.values():
                once(load, stack, 1000)
            for turn in range(asked.rounds):
                for name in list(stacks) if turn % 2 else list(stacks)[::-1]:
                    found[name].append(once(load, stacks[name], asked.events))
    print(f"{'':14}{'before: min / median / max':>30}{'after':>30}")
    for what in found["before"][0]:
        columns = [sorted(one[what] for one in found[name]) for name in ("before", "after")]
        print(f"{what:14}" + "".join(f"{c[0]:14,.0f} /{median(c):6,.0f} /{c[-1]:6,.0f}" for c in columns))


if __name__ == "__main__":
    main()

"""Runs kapsel for minutes or hours under mixed traffic and faults, and writes what came of it as one HTML page.

Run: make soak MINUTES=30, or python bench/soak.py --minutes 3 --out soak.html

Real processes by `kapsel up`; senders send until they are accepted, and some twice; destinations are quick, slow,
flaky, and now and then hang. Components and Postgres are killed while all that goes on. At the end every accepted
webhook has to have arrived, every delivery to have ended, every attempt to be in the log, and what is measured over
time must not have grown.
"""

import argparse
import asyncio
import html
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, quantiles
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import psutil
from aiohttp import web
from stack import Stack

from kapsel_store.database import is_away

MANIFESTS = Path(__file__).parent / "soak-manifests" / "soak.yaml"
SAMPLE = 2.0  # seconds between two looks
FAULT = (10.0, 30.0)  # seconds between two faults
SETTLING = 600.0  # seconds that what is under way may take at the end
WARM = 0.25  # of the run, before which nothing is held against anybody
GROWTH = 0.2  # of its mean that a measured line may grow over the rest of the run, beyond its allowance
ALLOWANCE = {"rss": 40.0, "fds": 30.0, "dead": 20_000.0}  # MiB, descriptors, rows

Point = tuple[float, float]


@dataclass
class Seen:
    """What the soak itself knows."""

    begun: float = field(default_factory=time.monotonic)
    accepted: dict[str, UUID] = field(default_factory=dict)  # key -> event
    accepted_at: dict[str, float] = field(default_factory=dict)
    arrived: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # webhook-id -> destinations
    refused: int = 0
    doubles: int = 0
    wrong: list[str] = field(default_factory=list)
    ingest: list[Point] = field(default_factory=list)  # when, ms
    delivered: list[Point] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    series: dict[str, dict[str, list[Point]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def now(self) -> float:
        return time.monotonic() - self.begun


class Destinations:
    """Four hosts in one server, told apart by the path."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.hangs = asyncio.Event()  # set: /flaky does not answer
        self.calm = False
        self.port = 0

    async def start(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/{name}", self._take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        name, webhook = request.match_info["name"], request.headers["webhook-id"]
        body = await request.read()
        if name == "flaky" and not self.calm:
            if self.hangs.is_set():
                await asyncio.sleep(60)
            if random.random() < 0.2:
                return web.Response(status=random.choice((500, 503, 429)), headers={"Retry-After": "1"})
        if name == "slow" and not self.calm:
            await asyncio.sleep(random.uniform(0.2, 3))
        if name == "quick" and webhook not in self._seen.arrived:
            sent = float(body.decode().partition('"sent": ')[2].partition("}")[0])
            self._seen.delivered.append((self._seen.now(), (time.monotonic() - sent) * 1000))
        self._seen.arrived[webhook].add(name)
        return web.Response(text="ok")


async def send(session: aiohttp.ClientSession, url: str, key: str, seen: Seen) -> None:
    """Send one webhook until it is accepted, and some of them once more."""
    body = f'{{"key": "{key}", "filling": "{"x" * random.choice((10, 500, 4000))}", "sent": {time.monotonic()}}}'
    headers = {"Content-Type": "application/json", "X-Delivery": key}
    times = 2 if random.random() < 0.05 else 1
    while times:
        begun = time.monotonic()
        try:
            async with session.post(url, data=body, headers=headers) as answer:
                document = await answer.json()
                if answer.status != 202:
                    raise ValueError(answer.status)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            seen.refused += 1
            await asyncio.sleep(random.uniform(0.2, 1))
            continue
        seen.ingest.append((seen.now(), (time.monotonic() - begun) * 1000))
        event = UUID(document["id"])
        if seen.accepted.setdefault(key, event) != event:
            seen.wrong.append(f"{key} is two events: {seen.accepted[key]} and {event}")
        seen.doubles += times == 1 and key in seen.accepted_at
        seen.accepted_at.setdefault(key, seen.now())
        times -= 1


async def traffic(url: str, seconds: float, rate: float, seen: Seen) -> None:
    """Send at a rate that swings, until the time is up and all is accepted."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as sending:
        number = 0
        while seen.now() < seconds:
            swing = 3.0 if int(seen.now()) % 20 < 2 else 1.0
            sending.create_task(send(session, url, f"k{number}", seen))
            number += 1
            await asyncio.sleep(random.expovariate(rate * swing))


async def faults(stack: Stack, destinations: Destinations, seconds: float, seen: Seen) -> None:
    """Do something bad now and then."""
    while seen.now() < seconds:
        await asyncio.sleep(min(random.uniform(*FAULT), max(0.0, seconds - seen.now())))
        if seen.now() >= seconds:
            return
        kind = random.choice(("receiver", "deliverer", "deliverer", "attestor", "console", "postgres", "stop", "hang"))
        seen.faults.append((seen.now(), kind))
        if kind == "hang":
            destinations.hangs.set()
            await asyncio.sleep(8)
            destinations.hangs.clear()
            continue
        pids = stack.processes().get("deliverer" if kind == "stop" else kind, [])
        with suppress(ProcessLookupError, psutil.NoSuchProcess, IndexError):
            process = psutil.Process(random.choice(pids))
            if kind == "stop":
                process.suspend()
                await asyncio.sleep(12)  # longer than its leases
                process.resume()
            else:
                process.send_signal(signal.SIGKILL)


_SIZES = """
SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables
WHERE schemaname = 'kapsel' AND relname IN ('deliveries_live', 'unsequenced', 'idempotency', 'tiles', 'circuits')
"""
_QUEUE = """
SELECT (SELECT count(*) FROM kapsel.deliveries_live),
       (SELECT coalesce(extract(epoch FROM now() - min(due_at)), 0) FROM kapsel.deliveries_live
        WHERE state = 'pending' AND due_at < now()),
       (SELECT count(*) FROM kapsel.unsequenced)
"""


async def _look(stack: Stack, query: str) -> list[asyncpg.Record]:
    """Return what is stored just now, nothing while Postgres is killed and comes back."""
    try:
        connection = await asyncpg.connect(stack.database_url, timeout=5)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close(timeout=5)
    except Exception as error:
        if not is_away(error):
            raise
        return []


async def samples(stack: Stack, seen: Seen, ended: asyncio.Event) -> None:
    """Look at processes and tables until `ended`."""
    while not ended.is_set():
        at = seen.now()
        for name, pids in stack.processes().items():
            with suppress(psutil.Error):
                found = [psutil.Process(pid) for pid in pids]
                if name == "postgres":
                    found += found[0].children()
                seen.series["rss"][name].append((at, sum(each.memory_info().rss for each in found) / 2**20))
                seen.series["fds"][name].append((at, sum(each.num_fds() for each in found)))
        for name, dead, _ in await _look(stack, _SIZES):
            seen.series["dead"][name].append((at, dead))
        for live, lag, unsequenced in await _look(stack, _QUEUE):
            seen.series["queue"]["live deliveries"].append((at, live))
            seen.series["queue"]["attempts without a leaf"].append((at, unsequenced))
            seen.series["lag"]["oldest due"].append((at, float(lag)))
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), SAMPLE)


async def settle(stack: Stack) -> None:
    """Wait until every delivery has ended and every attempt has its leaf."""
    deadline = time.monotonic() + SETTLING
    while time.monotonic() < deadline:
        for live, _, unsequenced in await _look(stack, _QUEUE):
            if not live and not unsequenced:
                return
        await asyncio.sleep(1)


async def account(stack: Stack, seen: Seen) -> dict[str, int]:
    """Hold what was promised against what is stored; what does not fit is noted in `seen`."""
    connection = await asyncpg.connect(stack.database_url, server_settings={"search_path": "kapsel"})
    events = {row[0] for row in await connection.fetch("SELECT id FROM events")}
    states = dict(await connection.fetch("SELECT state, count(*) FROM deliveries GROUP BY state"))
    attempts, leaves = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM attempts), (SELECT count(*) FROM leaves WHERE attempt_id IS NOT NULL)"
    )
    await connection.close()
    lost = [key for key, event in seen.accepted.items() if event not in events]
    missing = [key for key, event in seen.accepted.items() if len(seen.arrived.get(str(event), ())) < 3]
    for what, found in (("accepted and not stored", lost), ("accepted and not arrived everywhere", missing)):
        if found:
            seen.wrong.append(f"{len(found)} {what}: {found[:5]}")
    if len(events) != len(set(seen.accepted.values())):
        seen.wrong.append(f"{len(events)} events are stored, and {len(seen.accepted)} webhooks were sent")
    if rest := {state: count for state, count in states.items() if state != "delivered"}:
        seen.wrong.append(f"deliveries that did not end well: {rest}")
    if attempts != leaves:
        seen.wrong.append(f"{attempts} attempts and {leaves} leaves")
    return {"events": len(events), "deliveries": sum(states.values()), "attempts": attempts, "leaves": leaves}


def growth(points: Sequence[Point]) -> tuple[float, float]:
    """Return how much a line fitted to the points grows from end to end, and their mean; the warm-up is left out."""
    if not points:
        return 0.0, 0.0
    warm = points[-1][0] * WARM
    rest = [point for point in points if point[0] >= warm]
    middle_x, middle_y = mean(x for x, _ in rest), mean(y for _, y in rest)
    spread = sum((x - middle_x) ** 2 for x, _ in rest)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in rest) / spread if spread else 0.0
    return slope * (rest[-1][0] - rest[0][0]), middle_y


def verdicts(seen: Seen) -> list[tuple[str, bool, str]]:
    """Return (what, whether it holds, figures) for all that must not grow, and for all that must not be lost."""
    found = [("nothing is lost, double or unproven", not seen.wrong, "; ".join(seen.wrong) or "every id accounted for")]
    for kind, unit in (("rss", "MiB"), ("fds", "descriptors"), ("dead", "rows")):
        for name, points in sorted(seen.series[kind].items()):
            grown, level = growth(points)
            holds = grown <= ALLOWANCE[kind] + GROWTH * level
            found.append((f"{kind} of {name} is bounded", holds, f"{grown:+.1f} {unit} on {level:.1f}"))
    return found


def binned(points: Sequence[Point], width: float) -> dict[str, list[Point]]:
    """Return the median and the 99th percentile of each time bin."""
    bins: dict[int, list[float]] = defaultdict(list)
    for x, y in points:
        bins[int(x // width)].append(y)
    lines: dict[str, list[Point]] = {"p50": [], "p99": []}
    for place, values in sorted(bins.items()):
        cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
        lines["p50"].append(((place + 0.5) * width, cuts[49]))
        lines["p99"].append(((place + 0.5) * width, cuts[98]))
    return lines


COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d")
WIDTH, HEIGHT, LEFT, BOTTOM = 860, 200, 60, 24


def chart(title: str, unit: str, lines: dict[str, list[Point]], marks: Sequence[tuple[float, str]], end: float) -> str:
    """Return one line chart as SVG; marks are vertical lines with a word."""
    highest = max((y for points in lines.values() for _, y in points), default=0.0) or 1.0
    across, up = (WIDTH - LEFT - 10) / max(end, 1.0), (HEIGHT - BOTTOM - 20) / highest

    def place(x: float, y: float) -> str:
        return f"{LEFT + x * across:.1f},{HEIGHT - BOTTOM - y * up:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        y = HEIGHT - BOTTOM - share * highest * up
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * highest:.4g}</text>')
        x = LEFT + share * end * across
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{share * end / 60:.1f} min</text>')
    for at, word in marks:
        x = LEFT + at * across
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{HEIGHT - BOTTOM}" class="mark">')
        parts.append(f"<title>{html.escape(word)} at {at:.0f} s</title></line>")
    for colour, (_, points) in zip(COLOURS * 3, sorted(lines.items()), strict=False):
        track = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{track}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    legend = " ".join(
        f'<span style="color:{colour}">&#9632; {html.escape(name)}</span>'
        for colour, name in zip(COLOURS * 3, sorted(lines), strict=False)
    )
    return f"<h2>{html.escape(title)} <small>{html.escape(unit)}</small></h2>{''.join(parts)}</svg><p>{legend}</p>"


def page(seen: Seen, counted: dict[str, int], seconds: float) -> str:
    """Return the report."""
    found = verdicts(seen)
    rows = "".join(
        f"<tr><td>{'holds' if holds else '<b>DOES NOT HOLD</b>'}</td><td>{html.escape(what)}</td>"
        f"<td>{html.escape(figures)}</td></tr>"
        for what, holds, figures in found
    )
    kinds = defaultdict(int)
    for _, kind in seen.faults:
        kinds[kind] += 1
    facts = (
        f"{seconds / 60:.1f} minutes; {len(seen.accepted)} webhooks accepted, {seen.doubles} of them sent twice, "
        f"{seen.refused} requests refused or unanswered and sent again; {_told(counted)}; faults: {_told(kinds)}"
    )
    end, width = seen.now(), max(2.0, seconds / 200)
    charts = [
        ("Memory", "MiB, all processes of a component", seen.series["rss"]),
        ("Open descriptors", "", seen.series["fds"]),
        ("Dead rows", "as Postgres estimates", seen.series["dead"]),
        ("Queue", "rows", seen.series["queue"]),
        ("Lag", "seconds that the oldest due delivery waits", seen.series["lag"]),
        ("Ingest", "ms until 202", binned(seen.ingest, width)),
        ("End to end", "ms from sent to the quick destination", binned(seen.delivered, width)),
    ]
    body = "".join(chart(title, unit, dict(lines), seen.faults, end) for title, unit, lines in charts)
    passed = all(holds for _, holds, _ in found)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>kapsel soak</title><style>
body {{ font: 14px system-ui, sans-serif; max-width: 900px; margin: 2em auto; color: #111 }}
svg {{ width: 100%; font-size: 11px }} .grid {{ stroke: #ddd }} .mark {{ stroke: #f59e0b; stroke-dasharray: 2 3 }}
table {{ border-collapse: collapse }} td {{ border-top: 1px solid #ddd; padding: .2em .6em }} small {{ color: #666 }}
</style><h1>Soak: {"passed" if passed else "FAILED"}</h1><p>{html.escape(facts)}</p><table>{rows}</table>
<p>Dashed lines are faults: hover to see which.</p>{body}</html>
"""


def _told(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


async def soak(options: argparse.Namespace, work: Path) -> int:
    """Run it; return the exit code."""
    seen, seconds = Seen(), options.minutes * 60.0
    destinations = Destinations(seen)
    runner = await destinations.start()
    manifests = work / "manifests"
    manifests.mkdir()
    declared = MANIFESTS.read_text().replace("127.0.0.1:9900", f"127.0.0.1:{destinations.port}")
    (manifests / "soak.yaml").write_text(declared)
    with Stack(work / "data", workers=options.workers, manifests=manifests, endpoint="soak/in") as stack:
        url = f"{stack.ingest}/ingest/soak/in"
        seen.begun = time.monotonic()
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(samples(stack, seen, ended))
            tasks.create_task(faults(stack, destinations, seconds, seen))
            await traffic(url, seconds, options.rate, seen)
            destinations.calm = True
            destinations.hangs.clear()
            await settle(stack)
            ended.set()
        counted: dict[str, Any] = await account(stack, seen)
    await runner.cleanup()
    Path(options.out).write_text(page(seen, counted, seconds))  # noqa: ASYNC240 - nothing else runs any more
    for what, holds, figures in verdicts(seen):
        print(f"{'ok' if holds else 'FAILED'}: {what} ({figures})")
    print(f"written: {options.out}")
    return 0 if all(holds for _, holds, _ in verdicts(seen)) else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make soak", description="kapsel under traffic and faults, measured over time"
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=40.0, help="webhooks a second, on average a bit more")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="soak.html")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kapsel-soak-") as work:
        return asyncio.run(soak(options, Path(work)))


if __name__ == "__main__":
    sys.exit(main())

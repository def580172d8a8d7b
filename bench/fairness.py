"""How much dead and slow destinations delay the others: `python bench/fairness.py [--rounds 3] [--seconds 15]`.

One embedded Postgres, one deliverer as a process of its own, and destinations that answer at once, all on this machine.
In each round they get their events alone, then beside one that takes every connection and never answers and one that
answers after seconds, and then beside forty whose names hang in DNS. All of these have a backlog, and no circuit, which
would take them out of the way. With `--places 512` each could use up all places of the deliverer. What is measured is
the time from the commit of an event until it arrives at a destination that answers at once, in the smallest, median and
largest of the rounds.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
from aiohttp import web

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store import configuration, database, events, ids
from kapsel_store.migrate import migrate
from kapsel_store.rows import (
    Backoff,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    NewDelivery,
    NewEvent,
    Policy,
    RelayRow,
    Verification,
)
from kapsel_store.sealing import SealingKeys

SCHEMA: Final = "bench"
QUICK: Final = 4  # destinations
HANGING: Final = 40  # destinations whose names hang
CONCURRENCY: Final = 512  # KAPSEL_DELIVERER_CONCURRENCY
TIMEOUT: Final = timedelta(seconds=10)  # of the dead one
SLOW: Final = 3.0  # seconds until the slow one answers
WARM_UP: Final = 3.0  # seconds that are not measured
PATIENCE: Final = 60.0
ENDPOINT: Final = EndpointRow(id=uuid4(), namespace="bench", name="orders", verification=Verification(scheme="none"))
UNSHIELDED: Final = Policy(
    backoff=Backoff(type="Schedule", schedule=(timedelta(seconds=1),)), max_attempts=1000, circuit_breaker=None
)

# A deliverer whose resolver hangs for some names; all others are this machine.
DELIVERER: Final = """
import socket, threading
from kapsel_deliverer.__main__ import serve
from kapsel_deliverer.names import Address
from kapsel_deliverer.settings import DelivererSettings
from kapsel_runtime import process

def look_up(host, family):
    if host.startswith("hangs"):
        threading.Event().wait()
    return [Address("127.0.0.1", socket.AF_INET, 0)]

settings = process.load("deliverer", DelivererSettings)
process.run("deliverer", settings, lambda stopping: serve(settings, stopping, look_up))
"""


@dataclass
class Destinations:
    """One server for all of them, and when each event arrived at one that answers at once."""

    arrived: dict[int, float] = field(default_factory=dict)
    port: int = 0

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        match request.path:
            case "/dead":
                await asyncio.sleep(2 * TIMEOUT.total_seconds())
            case "/slow":
                await asyncio.sleep(SLOW)
            case _:
                self.arrived.setdefault(json.loads(body)["number"], time.perf_counter())
        return web.Response()


@asynccontextmanager
async def serving() -> AsyncIterator[Destinations]:
    """Run the destinations."""
    made = Destinations()
    runner = web.ServerRunner(web.Server(made.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


def destination(port: int, name: str, places: int = 32) -> DestinationRow:
    """Return a destination that may have so many tries under way."""
    return DestinationRow(
        id=uuid4(),
        endpoint_id=ENDPOINT.id,
        name=name,
        url=f"http://{name}.example:{port}/{name}",
        key_name="endpoint/orders",
        policy=UNSHIELDED,
        timeout=TIMEOUT,
        max_in_flight=places,
    )


def event(number: int, to: DestinationRow) -> NewEvent:
    """Return an event of 1 KiB for one destination."""
    body = json.dumps({"number": number, "filling": "x" * 980}).encode()
    return NewEvent(
        id=ids.new(),
        endpoint_id=ENDPOINT.id,
        received_at=datetime.now(UTC),
        content_type="application/json",
        headers="[]",
        body=body,
        body_hash=hashlib.sha256(body).digest(),
        salt=os.urandom(32),
        idempotency_key=None,
        idempotency_window=None,
        correlation_id=None,
        deliveries=(NewDelivery(id=ids.new(), destination_id=to.id, max_age=to.policy.max_age),),
    )


@asynccontextmanager
async def deliverer(url: str, key_file: Path) -> AsyncIterator[None]:
    """Run a deliverer that nobody has heard of, and kill it: it would wait for the dead one."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")},
        "KAPSEL_DATABASE_URL": url,
        "KAPSEL_DATABASE_ROLE": "kapsel_deliverer",
        "KAPSEL_DATABASE_SCHEMA": SCHEMA,
        "KAPSEL_SEALING_KEY_FILE": str(key_file),
        "KAPSEL_DELIVERER_CONCURRENCY": str(CONCURRENCY),
        "KAPSEL_INSTANCE": f"bench-{uuid4()}",
        "KAPSEL_HEALTH_PORT": "0",
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DELIVERER, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        child.kill()
        await child.wait()


async def measure(pool: asyncpg.Pool, seen: Destinations, rows: Sequence[DestinationRow], asked: argparse.Namespace,
                  url: str, key_file: Path) -> list[float]:  # fmt: skip
    """Return how long each event took to arrive, in seconds, the first ones left out."""
    seen.arrived.clear()
    quick, others = rows[:QUICK], rows[QUICK:]
    for row in others:
        async with pool.acquire() as connection:
            await events.insert(connection, [event(0, row) for _ in range(2 * asked.backlog // len(others))])
    committed: dict[int, float] = {}
    total = int((WARM_UP + asked.seconds) * asked.rate)

    async def store(number: int) -> None:
        async with pool.acquire() as connection:
            await events.insert(connection, [event(number, to := quick[number % QUICK])], hint=[to.id])
        committed[number] = time.perf_counter()

    async with deliverer(url, key_file), asyncio.TaskGroup() as group:
        begun = await _first_arrival(pool, seen, quick[0])
        for number in range(1, total + 1):
            await asyncio.sleep(max(0.0, begun + number / asked.rate - time.perf_counter()))
            group.create_task(store(number))
        await _until(lambda: len(seen.arrived) > total)
    await _clean(pool)
    measured = range(int(WARM_UP * asked.rate) + 1, total + 1)
    return [max(0.0, seen.arrived[number] - committed[number]) for number in measured]


async def _first_arrival(pool: asyncpg.Pool, seen: Destinations, to: DestinationRow) -> float:
    """Wait until the deliverer is at work, and return when that was."""
    async with pool.acquire() as connection:
        await events.insert(connection, [event(0, to)], hint=[to.id])
    await _until(lambda: 0 in seen.arrived)
    return time.perf_counter()


async def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; give up if it does not."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if holds():
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"events did not arrive within {PATIENCE:g} s")
        await asyncio.sleep(0.02)


async def _clean(pool: asyncpg.Pool) -> None:
    """Forget all that a round has left, and what the deliverer that was killed had for itself."""
    async with pool.acquire() as connection:
        for table in ("attempts", "events", "deliveries", "unsequenced"):
            await connection.execute(
                f"ALTER TABLE {table} DISABLE TRIGGER USER; DELETE FROM {table};"
                f" ALTER TABLE {table} ENABLE TRIGGER USER"
            )
        await connection.execute("DELETE FROM slots; DELETE FROM buckets; DELETE FROM circuits; DELETE FROM processes")
        await connection.execute("VACUUM deliveries_live")


async def run(url: str, directory: Path, asked: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Measure the cases in turn, so that what else the machine does falls on all of them."""
    key_file = directory / "sealing.key"
    key_file.write_text(os.urandom(32).hex() + "\n")
    await migrate(url, schema=SCHEMA)
    signing = KeyRow(
        id=uuid4(), namespace="bench", name="endpoint/orders", version=1, algorithm="HMAC-SHA256",
        secret=os.urandom(32), not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    as_bench = database.settings(schema=SCHEMA, role=None, component="bench")
    async with (
        serving() as seen,
        asyncpg.create_pool(url, min_size=1, max_size=8, server_settings=as_bench) as pool,
    ):
        quick = [destination(seen.port, f"quick{number}") for number in range(QUICK)]
        in_the_way = [destination(seen.port, name, asked.places) for name in ("dead", "slow")]
        hanging = [destination(seen.port, f"hangs{number}", asked.places) for number in range(HANGING)]
        cases = {
            "alone": quick,
            "beside a dead and a slow one": [*quick, *in_the_way],
            f"beside {HANGING} names that hang": [*quick, *hanging],
        }
        found: dict[str, list[list[float]]] = {name: [] for name in cases}
        for _ in range(asked.rounds):
            for name, rows in cases.items():
                desired = Configuration(
                    relay=RelayRow(allowed_cidrs=("127.0.0.0/8",), allow_http=True),
                    endpoints=(ENDPOINT,), destinations=tuple(rows), keys=(signing,),
                )  # fmt: skip
                async with pool.acquire() as connection:
                    await configuration.apply(connection, SealingKeys.from_file(key_file), desired, actor="bench")
                found[name].append(await measure(pool, seen, rows, asked, url, key_file))
    return found


def shown(rounds: Sequence[Sequence[float]], percent: int) -> str:
    """Return a percentile of the rounds in milliseconds: the smallest, the median and the largest."""
    each = sorted(1000 * statistics.quantiles(taken, n=100)[percent - 1] for taken in rounds)
    return f"{each[0]:,.0f} / {statistics.median(each):,.0f} / {each[-1]:,.0f}"


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="that are measured in each case and round")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second to those that answer at once")
    parser.add_argument(
        "--backlog", type=int, default=5000, help="deliveries that wait for the dead and the slow one each"
    )
    parser.add_argument("--places", type=int, default=32, help="maxInFlight of each one in the way")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory) / "postgres")
        server.start()
        try:
            found = asyncio.run(run(server.url, Path(directory), asked))
        finally:
            server.stop()
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    print(f"{'milliseconds':30} {'p50':>20} {'p90':>20} {'p99':>20}")
    for name, rounds in found.items():
        print(f"{name:30} {shown(rounds, 50):>20} {shown(rounds, 90):>20} {shown(rounds, 99):>20}")


if __name__ == "__main__":
    main()

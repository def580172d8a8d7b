"""Fills a running kapsel with history, to see whether the n-th event costs more than the first.

Run: python bench/growth.py --events 10000000      about half an hour, and 20 GB of disk
     python bench/growth.py --events 100000        to see that it works
     python bench/growth.py --events 10000000 --data DIR --rounds 0      fills DIR, for runs that measure it later

bench/run.py uses `fill` for its section growth. The rows are those a delivered webhook leaves behind: an event, its
idempotency key, a final delivery, an attempt and its leaf, over as many days as are asked for. They are made in SQL,
because millions of them by HTTP take longer than what is to be measured. By itself this program keeps two of kapsel up,
one with hardly any history and one with all of it, and measures ingest, delivery and reading of both in turns, so that
both meet the same moods of the machine; and what an event costs: CPU of all processes, WAL, and bytes of each table.
The figures are in bench/results/growth.json, too.
"""

import argparse
import asyncio
import json
import tempfile
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
from stack import SINK, Load, Stack

from kapsel_store import partitions

BATCH = 20_000
SCHEMA = "kapsel"
SINKING = ("-sink", SINK, "-drain", "2m")
MADE_UP_LOG = 1_000  # its leaves lie in the table of the real ones

FILL = """
WITH endpoint AS (SELECT id FROM endpoints WHERE name = 'bench' AND deleted_at IS NULL),
destination AS (SELECT d.id FROM destinations d JOIN endpoint e ON d.endpoint_id = e.id WHERE d.deleted_at IS NULL),
made AS MATERIALIZED (
    SELECT uuidv7($2) AS event_id, uuidv7($2) AS delivery_id, uuidv7($2) AS attempt_id, $4 + g AS leaf_index,
           convert_to(rpad(gen_random_uuid()::text, $3, 'x'), 'utf8') AS body
    FROM generate_series(1, $1::int) g
), stored AS (
    INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, idempotency_key)
    SELECT event_id, (SELECT id FROM endpoint), now() + $2, 'application/json',
           '[["Content-Type", "application/json"]]', body, sha256(body), sha256(body), sha256(body) FROM made
), known AS (
    -- What is older than its window is forgotten, in life.
    INSERT INTO idempotency (endpoint_id, key, event_id, expires_at)
    SELECT (SELECT id FROM endpoint), sha256(body), event_id, now() + interval '1 day' FROM made
    WHERE $2 > interval '-1 day'
), ended AS (
    INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, state, attempts, expires_at, finished_at)
    SELECT delivery_id, event_id, (SELECT id FROM endpoint), (SELECT id FROM destination), 'delivered', 1,
           now() + interval '3 days', now() FROM made
), logged AS (
    INSERT INTO leaves (log_id, leaf_index, attempt_id, leaf)
    SELECT 1000, leaf_index, attempt_id, convert_to(rpad('{', 600, 'x'), 'utf8') FROM made
)
INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome,
                      reason, url, payload_hash, response_status)
SELECT attempt_id, delivery_id, event_id, (SELECT id FROM endpoint), (SELECT id FROM destination), 1, now() + $2,
       interval '3 ms', 'delivered', 'status_200', 'http://127.0.0.1:9900/', sha256(body), 200 FROM made
"""
SIZES = """
SELECT coalesce(p.inhparent, c.oid)::regclass::text AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class c LEFT JOIN pg_inherits p ON p.inhrelid = c.oid
WHERE c.relnamespace = 'kapsel'::regnamespace AND c.relkind = 'r' GROUP BY 1 ORDER BY 2 DESC LIMIT 6
"""
STORED = "SELECT coalesce(max(leaf_index), 0) FROM leaves WHERE log_id = $1"

Figures = dict[str, Any]


async def fill(url: str, events: int, *, days: int = 0, body: int = 1024) -> None:
    """Add that many delivered webhooks, the oldest so many days old."""
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA, "synchronous_commit": "off"})
    try:
        now = datetime.now(UTC)
        for age in range(days, 0, -1):
            await partitions.maintain(connection, now - timedelta(days=age))
        after = await connection.fetchval(STORED, MADE_UP_LOG)
        for done in range(0, events, BATCH):
            age = timedelta(days=days) * (1 - done / events)
            await connection.execute(FILL, min(BATCH, events - done), -age, body, after + done, timeout=600)
        await connection.execute("VACUUM (ANALYZE)", timeout=3600)
        await connection.execute("CHECKPOINT", timeout=3600)
    finally:
        await connection.close()


async def dead_tuples(url: str) -> int:
    """Return how many dead rows the queue's table holds."""
    connection = await asyncpg.connect(url)
    try:
        query = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'deliveries_live'"
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def ask(url: str, query: str, *arguments: object) -> Any:
    """Return one value."""
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def sizes(url: str, events: int) -> Figures:
    """Return the bytes of each large table, divided by the events."""
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    try:
        return {row["name"]: round(row["bytes"] / events) for row in await connection.fetch(SIZES)}
    finally:
        await connection.close()


def drive(stack: Stack, load: Load, endpoint: str, count: int, *flags: str) -> tuple[float, float, float]:
    """Send so many webhooks; return how many went through in a second, and µs of CPU and bytes of WAL for each."""
    before = asyncio.run(ask(stack.database_url, "SELECT pg_current_wal_insert_lsn()::text"))
    url = f"{stack.ingest}/ingest/bench/{endpoint}"
    closed = ("-mode", "closed", "-count", str(count), "-reps", "1")
    report = load.run(url, *closed, *flags, watch=stack.processes())
    written = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::float8"
    wal = asyncio.run(ask(stack.database_url, written, before))
    rate = report["summary"]["delivered_per_s" if flags else "accepted_per_s"][1]
    spent = sum(used["cpu_s"] for used in report["results"][0]["usage"].values())
    return rate, spent / count * 1e6, wal / count


def reading(stack: Stack) -> Figures:
    """Return the median milliseconds of pages of the console: of events, and of what is of one event or delivery."""
    api = json.loads((stack.data_dir / "up.json").read_text())["console"] + "/api/v1/"

    def get(page: str) -> bytes:
        with urllib.request.urlopen(api + page, timeout=60) as answer:
            return bytes(answer.read())

    [newest] = json.loads(get("deliveries?limit=1"))["items"]
    pages = {
        "events_page_ms": "events?limit=50",
        "deliveries_of_event_ms": f"deliveries?event={newest['event_id']}",
        "attempts_of_event_ms": f"attempts?event={newest['event_id']}",
        "attempts_of_delivery_ms": f"attempts?delivery={newest['id']}",
    }
    found = {}
    for name, page in pages.items():
        spent = []
        for _ in range(50):
            began = time.perf_counter()
            get(page)
            spent.append((time.perf_counter() - began) * 1000)
        found[name] = round(median(spent), 2)
    return found


def measure(stack: Stack, load: Load, count: int) -> Figures:
    """Take webhooks without and with delivery, and read a page of what is stored."""
    ingest, ingest_cpu, ingest_wal = drive(stack, load, "parked", count)
    delivered, delivered_cpu, delivered_wal = drive(stack, load, "bench", count, *SINKING)
    return {
        "ingest_per_s": ingest,
        "ingest_cpu_us": ingest_cpu,
        "ingest_wal_bytes": ingest_wal,
        "delivered_per_s": delivered,
        "delivered_cpu_us": delivered_cpu,
        "delivered_wal_bytes": delivered_wal,
        **reading(stack),
        "queue_dead_tuples": asyncio.run(dead_tuples(stack.database_url)),
    }


def in_turns(stacks: dict[str, Stack], load: Load, rounds: int, count: int) -> dict[str, Figures]:
    """Measure each of them once a round; return minimum, median and maximum of every figure of each."""
    found: dict[str, list[Figures]] = {name: [] for name in stacks}
    for turn in range(rounds):
        for name in list(stacks) if turn % 2 else list(stacks)[::-1]:
            found[name].append(measure(stacks[name], load, count))
    return {
        name: {
            what: [round(of([each[what] for each in every]), 1) for of in (min, median, max)]
            for what in (every[0] if every else {})
        }
        for name, every in found.items()
    }


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=28, help="over how many days they came in")
    parser.add_argument("--body", type=int, default=256, help="bytes of each stored body; what is sent has 1 KiB")
    parser.add_argument("--count", type=int, default=5_000, help="webhooks of each repetition that is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a directory to keep the history in; what it has is not made again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kapsel-growth-") as directory:
        work = Path(directory)
        work.chmod(0o711)
        load = Load(work)
        homes = {"few": work / "few", "many": arguments.data or work / "many"}
        for home in homes.values():
            home.mkdir(mode=0o711, parents=True, exist_ok=True)
        with Stack(homes["few"] / "data", 1) as few, Stack(homes["many"] / "data", 1) as many:
            has = asyncio.run(ask(many.database_url, STORED, MADE_UP_LOG))
            if has > arguments.events:
                raise SystemExit(f"{arguments.data} holds {has} events already; allowed: --events {has} or more")
            began = time.monotonic()
            if has < arguments.events:
                asyncio.run(fill(many.database_url, arguments.events - has, days=arguments.days, body=arguments.body))
            figures: Figures = {
                "events": arguments.events,
                "filled_in_s": round(time.monotonic() - began),
                "bytes_per_event": asyncio.run(sizes(many.database_url, arguments.events)),
                **in_turns({"few": few, "many": many}, load, arguments.rounds, arguments.count),
            }
    text = json.dumps(figures, indent=2)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "growth.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

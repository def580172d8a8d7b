"""Measures what it costs to take the bodies out of events that are over: time, WAL and space (docs/adr/0008).

Run: python bench/retention.py                  60,000 events of 1 KiB and of 8 KiB
     python bench/retention.py --events 600000

It is the maintenance of kapsel itself that empties, on an embedded Postgres of its own.
"""

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store import database, partitions
from kapsel_store.migrate import migrate

SCHEMA = "kapsel"
BRIEF, PATIENT = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"

ENDPOINTS = """
INSERT INTO endpoints (id, namespace, name, generation, retention, spec) VALUES
    ($1, 'bench', 'brief', 1, interval '1 hour', '{}'), ($2, 'bench', 'patient', 1, interval '30 days', '{}')
ON CONFLICT DO NOTHING
"""
FILL = """
INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt)
SELECT uuidv7(interval '-2 hours'), CASE WHEN random() < $3 THEN $4::uuid ELSE $5::uuid END, now() - interval '2 hours',
       'application/json',
       (SELECT json_agg(json_build_array('X-Header-' || i, md5(g::text || i))) FROM generate_series(1, 8) i),
       convert_to(rpad(md5(g::text), $2, 'x'), 'utf8'), sha256('a'), sha256('b')
FROM generate_series(1, $1::int) g
"""
SIZE = "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'events'::regclass"


async def measure(connection: asyncpg.Connection, events: int, size: int, share: float) -> None:
    """Print the figures of one mix."""
    await connection.execute("TRUNCATE events, emptied")
    await connection.execute(FILL, events, size, share, BRIEF, PATIENT, timeout=3600)
    await connection.execute("VACUUM (ANALYZE) events", timeout=3600)
    await connection.execute("CHECKPOINT", timeout=3600)
    before = await connection.fetchval(SIZE)
    began, lsn = time.monotonic(), await connection.fetchval("SELECT pg_current_wal_lsn()")
    emptied, finished = 0, False
    while not finished:
        done = await partitions.empty(connection, datetime.now(UTC) + timedelta(minutes=1))
        emptied, finished = emptied + done.events, done.finished
    seconds = time.monotonic() - began
    wal = await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::bigint", lsn)
    await connection.execute("VACUUM events", timeout=3600)
    after = await connection.fetchval(SIZE)
    print(
        f"{size:>6} B  {share:.0%} over: {emptied} emptied, {emptied / seconds:,.0f}/s, "
        f"{wal / max(emptied, 1):,.0f} B of WAL each, {before >> 20} -> {after >> 20} MiB"
    )


async def run(events: int, directory: Path) -> None:
    """Measure every mix on a fresh server."""
    server = EmbeddedPostgres(directory)
    server.start()
    try:
        await migrate(server.url, schema=SCHEMA)
        settings = database.settings(schema=SCHEMA, role=None, component="bench")
        connection = await asyncpg.connect(server.url, server_settings=settings)
        await connection.execute(ENDPOINTS, BRIEF, PATIENT)
        await partitions.maintain(connection, datetime.now(UTC) - timedelta(hours=2))
        for size in (1024, 8192):
            for share in (0.5, 1.0):
                await measure(connection, events, size, share)
        await connection.close()
    finally:
        server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kapsel-retention-") as directory:
        asyncio.run(run(arguments.events, Path(directory)))


if __name__ == "__main__":
    main()

"""Compares two ways to remember which attempts have no leaf yet, by the WAL and the disk they cost (docs/adr/0003).

Run: python bench/unsequenced.py
"""

import asyncio
import tempfile
from pathlib import Path

import asyncpg

from kapsel_cli.postgres import EmbeddedPostgres

ATTEMPTS = 50_000
BATCH = 500

COLUMNS = """
    id uuid PRIMARY KEY, delivery_id uuid, event_id uuid, endpoint_id uuid, destination_id uuid, number int,
    started_at timestamptz, duration interval, outcome text, reason text, url text, payload_hash bytea,
    payload_commitment bytea, signature_digest bytea, response_status int, response_headers json, response_body bytea,
    response_size bigint, response_digest bytea
"""
ROW = """
    uuidv7(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, now(), interval '3ms',
    'delivered', 'status_200', 'https://billing.example.com/hooks', sha256('a'), sha256('b'), sha256('c'), 200,
    '[["content-type","text/plain"],["date","Sat, 21 Nov 2026 12:00:00 GMT"],["server","nginx"]]'::json,
    convert_to(repeat('o', 100), 'utf8'), 100, sha256('d')
"""
LEAF = "convert_to(repeat('x', 800), 'utf8')"

MARKED = {
    "schema": f"""
        CREATE TABLE marked ({COLUMNS}, leaf_index bigint UNIQUE);
        CREATE INDEX ON marked (delivery_id);
        CREATE INDEX ON marked (id) WHERE leaf_index IS NULL;
        CREATE TABLE marked_leaves (leaf_index bigint PRIMARY KEY, leaf bytea)""",
    "record": f"INSERT INTO marked SELECT {ROW}, NULL FROM generate_series(1, {BATCH})",
    "sequence": f"""
        WITH next AS (
            SELECT id, row_number() OVER (ORDER BY id) + $1 - 1 AS leaf_index
            FROM marked WHERE leaf_index IS NULL ORDER BY id LIMIT {BATCH}
        ), placed AS (
            UPDATE marked SET leaf_index = next.leaf_index FROM next WHERE marked.id = next.id
        )
        INSERT INTO marked_leaves SELECT leaf_index, {LEAF} FROM next""",
    "size": "SELECT pg_total_relation_size('marked') + pg_total_relation_size('marked_leaves')",
}
NARROW = {
    "schema": f"""
        CREATE TABLE wide ({COLUMNS});
        CREATE INDEX ON wide (delivery_id);
        CREATE TABLE narrow (id uuid PRIMARY KEY);
        CREATE TABLE narrow_leaves (leaf_index bigint PRIMARY KEY, attempt_id uuid UNIQUE, leaf bytea)""",
    "record": f"""
        WITH recorded AS (INSERT INTO wide SELECT {ROW} FROM generate_series(1, {BATCH}) RETURNING id)
        INSERT INTO narrow SELECT id FROM recorded""",
    "sequence": f"""
        WITH next AS (
            DELETE FROM narrow WHERE id IN (SELECT id FROM narrow ORDER BY id LIMIT {BATCH}) RETURNING id
        )
        INSERT INTO narrow_leaves SELECT row_number() OVER (ORDER BY id) + $1 - 1, id, {LEAF} FROM next""",
    "size": """SELECT pg_total_relation_size('wide') + pg_total_relation_size('narrow')
               + pg_total_relation_size('narrow_leaves')""",
}


async def measure(connection: asyncpg.Connection, way: dict[str, str]) -> tuple[float, float]:
    """Return (WAL bytes, disk bytes) per attempt."""
    await connection.execute(way["schema"])
    await connection.execute("CHECKPOINT")
    start = await connection.fetchval("SELECT pg_current_wal_lsn()")
    for first in range(0, ATTEMPTS, BATCH):
        await connection.execute(way["record"])
        await connection.execute(way["sequence"], first)
    wal = await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1)", start)
    return float(wal) / ATTEMPTS, float(await connection.fetchval(way["size"])) / ATTEMPTS


async def compare(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for name, way in (("null leaf index", MARKED), ("narrow table", NARROW)):
            wal, disk = await measure(connection, way)
            print(f"{name:16} {wal:8.0f} WAL bytes per attempt {disk:8.0f} bytes on disk per attempt")
    finally:
        await connection.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory))
        server.start()
        try:
            asyncio.run(compare(server.url))
        finally:
            server.stop()

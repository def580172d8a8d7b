"""Measures sequencing alone: attempts that wait, on a database of their own."""

import time
from uuid import uuid4

from kapsel_attestor.sequencer import Sequencer
from kapsel_store import configuration, database, migrate, tlog
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, Verification
from kapsel_store.sealing import SealingKeys

SCHEMA = "bench_log"
BATCH = 1000

FILL = """
WITH recorded AS (
    INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration,
        outcome, reason, url, payload_hash, payload_commitment, signature_digest, response_status, response_size,
        response_digest)
    SELECT uuidv7(), gen_random_uuid(), gen_random_uuid(), $1, $2, 1, now(), interval '3 ms', 'delivered', 'status_200',
        'https://billing.example.com/hooks', sha256(n::text::bytea), sha256('b'), sha256('c'), 200, 2, sha256('d')
    FROM generate_series(1, $3::int) AS n
    RETURNING id
)
INSERT INTO unsequenced (attempt_id) SELECT id FROM recorded
"""


async def sequencing(url: str, attempts: int) -> float:
    """Return leaves a second over `attempts` that wait, in batches of 1,000, each its own durable commit."""
    await migrate.migrate(url, schema=SCHEMA)
    async with database.connect(url, role=None, schema=SCHEMA, size=2, component="bench") as pool:
        await _fill(pool, attempts)
        async with pool.acquire() as connection:
            log = await tlog.open_log(connection, "bench.kapsel.local/log")
            sequencer = await Sequencer.open(connection, log)
            start, done = time.perf_counter(), 0
            while taken := await sequencer.integrate(connection, BATCH):
                done += taken
            return done / (time.perf_counter() - start)


async def _fill(pool: database.Pool, attempts: int) -> None:
    endpoint = EndpointRow(id=uuid4(), namespace="bench", name="log", verification=Verification(scheme="none"))
    destination = DestinationRow(id=uuid4(), endpoint_id=endpoint.id, name="sink", url="https://billing.example.com/")
    async with pool.acquire() as connection:
        desired = Configuration(endpoints=(endpoint,), destinations=(destination,))
        await configuration.apply(connection, SealingKeys([bytes(32)]), desired, actor="bench")
        await connection.execute(FILL, endpoint.id, destination.id, attempts, timeout=300)
        await connection.execute("ANALYZE", timeout=300)

"""Measures sequencing alone: attempts that wait, on a database of their own, and a process as the attestor's is."""

import time
from uuid import UUID

from kapsel_attestor.sequencer import Sequencer
from kapsel_runtime import process
from kapsel_store import configuration, database, migrate, tlog
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, Verification
from kapsel_store.sealing import SealingKeys

SCHEMA = "bench_log"
BATCH = 1000
ENDPOINT, DESTINATION = UUID(int=1), UUID(int=2)

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


def sequencing(url: str, attempts: int) -> float:
    """Return leaves a second over `attempts` that wait, batch by durable batch, as the attestor catches up."""
    with process.runner() as runner:
        return runner.run(_sequencing(url, attempts))


async def _sequencing(url: str, attempts: int) -> float:
    await prepare(url, SCHEMA)
    async with database.connect(url, role=None, schema=SCHEMA, size=3, component="attestor") as pool:
        await fill(pool, attempts)
        async with pool.acquire() as connection:
            log = await tlog.open_log(connection, "bench.kapsel.local/log")
            sequencer = await Sequencer.open(connection, log, ahead=pool)
            start, done = time.perf_counter(), 0
            while taken := await sequencer.integrate(connection, BATCH):
                done += taken
            return done / (time.perf_counter() - start)


async def prepare(url: str, schema: str) -> None:
    """Make a schema with one endpoint and one destination, whose attempts are to be."""
    await migrate.migrate(url, schema=schema)
    endpoint = EndpointRow(id=ENDPOINT, namespace="bench", name="log", verification=Verification(scheme="none"))
    destination = DestinationRow(id=DESTINATION, endpoint_id=ENDPOINT, name="sink", url="https://billing.example.com/")
    desired = Configuration(endpoints=(endpoint,), destinations=(destination,))
    async with (
        database.connect(url, role=None, schema=schema, size=1, component="bench") as pool,
        pool.acquire() as connection,
    ):
        await configuration.apply(connection, SealingKeys([bytes(32)]), desired, actor="bench")


async def fill(pool: database.Pool, attempts: int) -> None:
    """Record attempts that wait for a leaf."""
    async with pool.acquire() as connection:
        await connection.execute(FILL, ENDPOINT, DESTINATION, attempts, timeout=300)
        await connection.execute("ANALYZE attempts, unsequenced", timeout=300)

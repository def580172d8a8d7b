"""Fills a running kapsel with history, to see whether the n-th event costs more than the first.

The rows are those a delivered webhook leaves behind: an event of 1 KiB, its idempotency key, a final delivery, an
attempt. They are made in SQL, because making a million of them by HTTP takes longer than what is to be measured.
"""

import asyncpg

BATCH = 20_000
SCHEMA = "kapsel"

FILL = """
WITH endpoint AS (SELECT id FROM endpoints WHERE name = 'bench' AND deleted_at IS NULL),
destination AS (SELECT d.id FROM destinations d JOIN endpoint e ON d.endpoint_id = e.id WHERE d.deleted_at IS NULL),
made AS MATERIALIZED (
    SELECT uuidv7() AS event_id, uuidv7() AS delivery_id, uuidv7() AS attempt_id,
           convert_to(rpad(gen_random_uuid()::text, 1024, 'x'), 'utf8') AS body
    FROM generate_series(1, $1::int)
), stored AS (
    INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, idempotency_key)
    SELECT event_id, (SELECT id FROM endpoint), now(), 'application/json', '[["Content-Type", "application/json"]]',
           body, sha256(body), sha256(body), sha256(body) FROM made
), known AS (
    INSERT INTO idempotency (endpoint_id, key, event_id, expires_at)
    SELECT (SELECT id FROM endpoint), sha256(body), event_id, now() + interval '1 day' FROM made
), ended AS (
    INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, state, attempts, expires_at, finished_at)
    SELECT delivery_id, event_id, (SELECT id FROM endpoint), (SELECT id FROM destination), 'delivered', 1,
           now() + interval '3 days', now() FROM made
)
INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome,
                      reason, url, payload_hash, response_status)
SELECT attempt_id, delivery_id, event_id, (SELECT id FROM endpoint), (SELECT id FROM destination), 1, now(),
       interval '3 ms', 'delivered', 'status_200', 'http://127.0.0.1:9900/', sha256(body), 200 FROM made
"""


async def fill(url: str, events: int) -> None:
    """Add that many delivered webhooks."""
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    try:
        for _ in range(0, events, BATCH):
            await connection.execute(FILL, min(BATCH, events), timeout=600)
        await connection.execute("VACUUM (ANALYZE)", timeout=1200)
        await connection.execute("CHECKPOINT", timeout=1200)
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

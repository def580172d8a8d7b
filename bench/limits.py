"""The limits beside which kapsel's figures stand: the same database and the same HTTP library doing nothing but that.

Run by bench/run.py; `python bench/limits.py PORT` is the trivial handler as a process of its own.
"""

import asyncio
import os
import sys
import time
from uuid import uuid4

import asyncpg
import uvloop
from aiohttp import web

ROWS = 64
SECONDS = 5.0
RATE = 500  # commits a second

TABLE = "CREATE TABLE IF NOT EXISTS bare (id uuid PRIMARY KEY, received_at timestamptz, headers json, body bytea)"
INSERT = """
    INSERT INTO bare SELECT id, now(), headers, body
    FROM unnest($1::uuid[], $2::json[], $3::bytea[]) AS r (id, headers, body)
"""


async def durable_rows_per_second(url: str) -> float:
    """Insert 1 KiB rows, 64 a durable commit, on two connections; return rows a second."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(TABLE)
        done = await asyncio.gather(*(_insert(url) for _ in range(2)))
        return sum(done) / SECONDS
    finally:
        await connection.execute("DROP TABLE IF EXISTS bare")
        await connection.close()


async def durable_commits(url: str) -> list[float]:
    """Insert 1 KiB rows at 500/s, each in a durable commit; return the seconds of each from when it was due."""
    async with asyncpg.create_pool(url, min_size=8, max_size=8) as pool:
        await pool.execute(TABLE)
        body, headers = os.urandom(1024), '[["content-type", "application/json"]]'

        async def one(due: float) -> float:
            await asyncio.sleep(due - time.perf_counter())
            await pool.execute(INSERT, [uuid4()], [headers], [body])
            return time.perf_counter() - due

        start = time.perf_counter() + 0.1
        took = await asyncio.gather(*(one(start + n / RATE) for n in range(int(RATE * SECONDS))))
        await pool.execute("DROP TABLE bare")
    return took


async def _insert(url: str) -> int:
    connection = await asyncpg.connect(url)
    body, headers = os.urandom(1024), '[["content-type", "application/json"]]'
    rows, deadline = 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            identifiers = await connection.fetchval(f"SELECT array_agg(uuidv7()) FROM generate_series(1, {ROWS})")
            await connection.execute(INSERT, identifiers, [headers] * ROWS, [body] * ROWS)
            rows += ROWS
    finally:
        await connection.close()
    return rows


async def serve(port: int) -> None:
    """Answer 202 to everything once the body is read: what the HTTP server alone can do."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(status=202, text="{}")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))

"""The receiver as real processes: shared port, health, reload, drain."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from kapsel_store import configuration
from kapsel_store.rows import Configuration

Make = Callable[..., Any]


class Process:
    """One receiver process and what it logs."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.lines: list[dict[str, Any]] = []
        self._told = False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.child.stderr is not None
        async for line in self.child.stderr:
            self.lines.append(json.loads(line))

    def logged(self, message: str) -> dict[str, Any] | None:
        return next((line for line in self.lines if line["message"].startswith(message)), None)

    def tell_to_stop(self) -> None:
        """Send SIGTERM once: a second one would end the process at once."""
        if not self._told:
            self._told = True
            with suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGTERM)

    async def stop(self) -> int:
        self.tell_to_stop()
        async with asyncio.timeout(240):
            await self._reading
            return await self.child.wait()


@pytest.fixture
async def start(database: Any, until: Make) -> AsyncIterator[Callable[..., Any]]:
    """Start receiver processes that are stopped with the test."""
    running: list[Process] = []

    async def one(port: int = 0, **settings: str) -> Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")} | {
            "KAPSEL_DATABASE_URL": database.url,
            "KAPSEL_DATABASE_ROLE": "kapsel_receiver",
            "KAPSEL_DATABASE_SCHEMA": database.schema,
            "KAPSEL_SEALING_KEY_FILE": str(database.sealing_key_file),
            "KAPSEL_INSTANCE": f"receiver-{len(running)}",
            "KAPSEL_RECEIVER_PORT": str(port),
            **settings,
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kapsel_receiver", env=environment, stderr=asyncio.subprocess.PIPE
        )
        process = Process(child)
        running.append(process)
        await until(lambda: process.logged("taking webhooks") is not None or child.returncode is not None)
        return process

    yield one
    for process in running:
        await process.stop()


async def apply(database: Any, *endpoints: Any) -> None:
    connection = await database.connection()
    await configuration.apply(connection, database.sealing, Configuration(endpoints=endpoints), actor="test")
    await connection.close()


@asynccontextmanager
async def free_port() -> AsyncIterator[int]:
    """Hold a port that processes may share, so that nobody else gets it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def status_of(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(url, data=b"{}") as answer:
        return answer.status


async def ready(session: aiohttp.ClientSession, address: str) -> int:
    async with session.get(f"{address}/health/ready") as answer:
        return answer.status


async def shown(session: aiohttp.ClientSession, addresses: list[str]) -> str:
    """Return the metrics of several processes."""
    texts = []
    for address in addresses:
        async with session.get(f"{address}/metrics") as answer:
            texts.append(await answer.text())
    return "\n".join(texts)


async def test_processes_share_a_port_follow_the_configuration_and_report_it(
    start: Any, database: Any, endpoint: Make, until: Make
) -> None:
    async with free_port() as port, aiohttp.ClientSession() as session:
        processes = [await start(port), await start(port)]
        url = f"http://127.0.0.1:{port}/ingest/shop/orders"
        await apply(database, endpoint())
        for process in processes:
            await until(lambda process=process: process.logged("serving generation 1") is not None)  # type: ignore[misc]
        connection = await database.connection()
        async with asyncio.timeout(60):
            query = "SELECT address FROM processes WHERE component = 'receiver' AND generation = 1"
            while len(found := await connection.fetch(query)) < 2:
                await asyncio.sleep(0.05)
        for row in found:
            async with asyncio.timeout(60):
                while await ready(session, row["address"]) != 200:
                    await asyncio.sleep(0.05)
            async with session.get(row["address"] + "/metrics") as answer:
                text = await answer.text()
                assert "configuration_generation 1.0" in text
                assert "database_up 1.0" in text
                assert "webhook_ingestion_connections 0.0" in text
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(60):
            while "webhook_ingestion_connections 1.0" not in await shown(session, [row["address"] for row in found]):
                await asyncio.sleep(0.05)
        writer.close()
        for _ in range(20):  # each on a connection of its own, so both processes get some
            async with aiohttp.ClientSession() as fresh:
                assert await status_of(fresh, url) == 202
        assert await connection.fetchval("SELECT count(*) FROM events") == 20
        await apply(database, endpoint(suspend=True))
        async with asyncio.timeout(60):
            while await status_of(session, url) != 503:
                await asyncio.sleep(0.02)
        await connection.close()


async def test_a_webhook_under_way_is_finished_when_the_process_is_told_to_stop(
    start: Any, database: Any, endpoint: Make, until: Make
) -> None:
    await apply(database, endpoint())
    process = await start(KAPSEL_RECEIVER_COMMIT_TIMEOUT="60")
    port = process.logged("taking webhooks")["port"]
    await until(lambda: process.logged("serving generation 1") is not None)
    owner = await database.connection()
    lock = owner.transaction()
    await lock.start()
    await owner.execute("LOCK TABLE deliveries, events IN ACCESS EXCLUSIVE MODE")
    async with aiohttp.ClientSession() as session:
        under_way = asyncio.create_task(status_of(session, f"http://127.0.0.1:{port}/ingest/shop/orders"))
        async with asyncio.timeout(60):
            watching = await database.connection()
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1"
            while not await watching.fetchval(query, "kapsel-receiver"):
                await asyncio.sleep(0.02)
        process.tell_to_stop()
        await until(lambda: process.logged("stopping") is not None)
        await lock.rollback()
        assert await under_way == 202
    assert await process.stop() == 0
    assert await watching.fetchval("SELECT count(*) FROM events") == 1
    assert await watching.fetchval("SELECT count(*) FROM processes") == 0
    await owner.close()
    await watching.close()


async def test_a_connection_ends_with_an_answer_and_not_under_a_request_when_the_process_is_told_to_stop(
    start: Any, database: Any, endpoint: Make, post: Callable[..., bytes], connect: Callable[..., Any], until: Make
) -> None:
    await apply(database, endpoint())
    process = await start()
    await until(lambda: process.logged("serving generation 1") is not None)
    wire = await connect(process.logged("taking webhooks")["port"])
    wire.send(post(b'{"n": 1}'))
    first = await wire.answer()
    assert (first.status, first.headers.get("connection")) == (202, None)
    process.tell_to_stop()
    await until(lambda: process.logged("stopping") is not None)
    wire.send(post(b'{"n": 2}'))
    last = await wire.answer()
    assert (last.status, last.headers["connection"]) == (202, "close")
    assert await wire.closed()
    assert await process.stop() == 0


async def test_a_receiver_starts_without_a_database_and_says_so(start: Any, tmp_path: Any) -> None:
    process = await start(KAPSEL_DATABASE_URL=f"postgresql://nobody@/none?host={tmp_path}")
    port = process.logged("taking webhooks")["port"]
    url = f"http://127.0.0.1:{port}/ingest/shop/orders"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as answer:
        assert answer.status == 503
        assert (await answer.json(content_type=None))["code"] == "not_ready"
    assert await process.stop() == 0


async def test_settings_that_cannot_be_used_end_the_process_with_one_sentence(database: Any) -> None:
    environment = {"KAPSEL_DATABASE_URL": database.url, "KAPSEL_RECEIVER_PORT": "70000", "PATH": os.environ["PATH"]}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kapsel_receiver", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await child.communicate()
    assert child.returncode == 2
    assert said.decode().count("\n") == 1
    assert "KAPSEL_RECEIVER_PORT" in said.decode() or "KAPSEL_SEALING_KEY_FILE" in said.decode()

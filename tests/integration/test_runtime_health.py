"""The health server, asked by a real HTTP client."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from kapsel_runtime.health import Health, HealthServer


class Process:
    """What a component has: an event that says stop, a registry, and one check whose answer can change."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.registry = CollectorRegistry()
        self.database: str | None = None
        self.health = Health(self.stopping)
        self.health.add("database", lambda: self.database)
        self.health.add("configuration", lambda: None)


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
async def server(process: Process) -> AsyncIterator[HealthServer]:
    async with await process.health.serve("127.0.0.1", 0, process.registry) as server:
        yield server


@pytest.fixture
async def client(server: HealthServer) -> AsyncIterator[ClientSession]:
    async with ClientSession(server.address, timeout=aiohttp.ClientTimeout(240)) as session:
        yield session


async def readiness(client: ClientSession) -> tuple[int, object]:
    async with client.get("/health/ready") as response:
        return response.status, await response.json()


async def test_a_process_is_ready_while_all_checks_pass(client: ClientSession) -> None:
    assert await readiness(client) == (200, {"status": "ready", "checks": {"database": "ok", "configuration": "ok"}})


async def test_a_failing_check_is_told_with_its_reason_until_it_passes_again(
    process: Process, client: ClientSession
) -> None:
    process.database = "connection refused"
    status, body = await readiness(client)
    assert status == 503
    assert body == {"status": "not ready", "checks": {"database": "connection refused", "configuration": "ok"}}
    process.database = None
    assert (await readiness(client))[0] == 200


async def test_a_draining_process_is_live_and_not_ready(process: Process, client: ClientSession) -> None:
    process.stopping.set()
    status, body = await readiness(client)
    assert status == 503
    assert body == {"status": "draining", "checks": {"database": "ok", "configuration": "ok"}}
    async with client.get("/health/live") as response:
        assert (response.status, await response.json()) == (200, {"status": "live"})


async def test_a_process_with_failing_checks_is_live(process: Process, client: ClientSession) -> None:
    process.database = "away"
    async with client.get("/health/live") as response:
        assert response.status == 200


async def test_metrics_are_those_of_the_registry_and_of_the_process(process: Process, client: ClientSession) -> None:
    Counter("webhook_ingestion", "Webhooks.", ["result"], registry=process.registry).labels("accepted").inc(3)
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name: family for family in text_string_to_metric_families(await response.text())}
    assert families["webhook_ingestion"].samples[0].value == 3
    assert {"python_info", "python_gc_collections"} <= families.keys()


async def test_a_scraper_that_asks_for_openmetrics_gets_it(client: ClientSession) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    async with client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert (await response.text()).endswith("# EOF\n")


async def test_scrapes_at_the_same_time_are_all_answered(client: ClientSession) -> None:
    async def scrape() -> int:
        async with client.get("/metrics") as response:
            await response.read()
            return response.status

    assert await asyncio.gather(*(scrape() for _ in range(8))) == [200] * 8


async def test_what_is_not_there_is_not_found(client: ClientSession) -> None:
    async with client.get("/") as response:
        assert response.status == 404
    async with client.post("/health/ready") as response:
        assert response.status == 405


async def test_a_closed_server_does_not_listen(process: Process) -> None:
    server = await process.health.serve("127.0.0.1", 0, process.registry)
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_port_that_is_taken_is_an_error(process: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await process.health.serve("127.0.0.1", taken.getsockname()[1], process.registry)


async def test_the_address_names_a_host_that_others_can_reach(process: Process) -> None:
    async with await process.health.serve("0.0.0.0", 0, process.registry) as server:
        assert server.address == f"http://{socket.gethostname()}:{server.port}"


async def test_a_server_of_ipv6_has_an_address_that_is_a_url(process: Process) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with (
        await process.health.serve("::1", 0, process.registry) as server,
        ClientSession(server.address) as client,
    ):
        assert (await readiness(client))[0] == 200

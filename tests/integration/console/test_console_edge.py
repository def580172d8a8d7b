"""What every answer of the console has in common: problems, deadlines, foreign pages, correlation, metrics."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from kapsel_console.app import ROUTES
from kapsel_store import database as store_database


@pytest.fixture
async def pool_to(database) -> AsyncIterator:
    """Pools that go elsewhere than to the test's server."""
    pools = []

    async def connect(port: int):
        url = f"postgresql://nobody@127.0.0.1:{port}/none"
        pools.append(await store_database.connect(url, role=None, schema="none", size=1, component="test"))
        return pools[-1]

    yield connect
    for pool in pools:
        pool.terminate()


async def test_while_the_database_is_away_every_answer_is_503_with_retry_after(serve, pool_to) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        console = await serve(pool=await pool_to(closed.getsockname()[1]))
        for path in ("/api/v1/endpoints", "/api/v1/events", "/checkpoint", "/api/v1/attestation/log"):
            status, content, response = await console.ask(path)
            assert (status, content["code"], response.headers["Retry-After"]) == (503, "storage_unavailable", "2")
    assert (await console.ask("/"))[0] == 200


async def test_a_database_that_never_answers_is_given_up(serve, pool_to) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        console = await serve(pool=await pool_to(server.sockets[0].getsockname()[1]), timeout=4.0)
        assert (await console.problem("/api/v1/events"))[:2] == (503, "storage_unavailable")


async def test_a_query_past_its_deadline_is_given_up_and_the_next_one_is_answered(serve, world) -> None:
    console = await serve(timeout=4.0)
    async with world.connection.transaction():
        await world.connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        status, code, detail = await console.problem("/api/v1/events")
        assert (status, code) == (503, "query_timeout")
        assert "since=15m" in detail
    assert (await console.ask("/api/v1/events"))[0] == 200


async def test_a_bug_is_500_without_its_details(serve, database, world, caplog) -> None:
    console = await serve(pool=await database.pool("receiver"))  # a role that may read no event
    status, content, _ = await console.ask("/api/v1/events", headers={"X-Correlation-Id": "find-me"})
    assert (status, content["code"], content["correlation_id"]) == (500, "internal_error", "find-me")
    assert "permission" not in content["detail"]
    assert "a request failed" in caplog.text


async def test_the_index_names_every_route(console) -> None:
    status, text, response = await console.ask("/")
    assert (status, response.content_type) == (200, "text/plain")
    for route in ROUTES:
        assert f"{route.method:<7}{route.path}" in text.decode()


async def test_a_wrong_method_is_told_the_right_ones(console) -> None:
    status, content, response = await console.ask("/api/v1/events", method="DELETE")
    assert (status, content["code"], response.headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD")
    path = "/api/v1/deliveries/0190f5fe-7c00-7a00-8000-000000000001/retry"
    assert (await console.problem(path))[:2] == (405, "method_not_allowed")
    assert (await console.ask("/api/v1/events", method="HEAD"))[0] == 200


async def test_host_names_of_others_are_refused_on_a_loopback_address(console, serve) -> None:
    for name in ("evil.example", "evil.example:8081", "127.0.0.1.evil.example", ""):
        assert (await console.problem("/api/v1/events", headers={"Host": name}))[:2] == (421, "unknown_host")
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1:8081", "[::1]:8081"):
        assert (await console.ask("/api/v1/events", headers={"Host": name}))[0] == 200
    exposed = await serve(host="0.0.0.0")
    assert (await exposed.ask("/api/v1/events", headers={"Host": "kapsel.example"}))[0] == 200


async def test_a_page_of_another_origin_changes_nothing(console, world) -> None:
    (event,) = await world.put()
    path = f"/api/v1/deliveries/{event.deliveries[0].id}/cancel"
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert (await console.problem(path, method="POST", headers={"Origin": origin}))[:2] == (403, "cross_origin")
    assert (await console.get(f"/api/v1/deliveries/{event.deliveries[0].id}"))["state"] == "pending"
    assert (await console.ask(path, method="POST", headers={"Origin": console.url}))[0] == 200


async def test_a_correlation_id_comes_back_unless_it_is_none(console) -> None:
    _, _, response = await console.ask("/", headers={"X-Correlation-Id": "abc-1"})
    assert response.headers["X-Correlation-Id"] == "abc-1"
    _, _, response = await console.ask("/", headers={"X-Correlation-Id": "a b{}"})
    assert response.headers["X-Correlation-Id"] not in ("", "a b{}")


async def test_requests_are_counted_by_route_and_never_by_path(console) -> None:
    for path in ("/api/v1/events", "/api/v1/events?stat=1", "/secret/path", "/other/path"):
        await console.ask(path)
    assert console.counted(method="GET", route="/api/v1/events", status="200") == 1
    assert console.counted(method="GET", route="/api/v1/events", status="400") == 1
    assert console.counted(method="unmatched", route="unmatched", status="404") == 2
    count = console.registry.get_sample_value("console_request_duration_seconds_count", {"route": "/api/v1/events"})
    assert count == 2

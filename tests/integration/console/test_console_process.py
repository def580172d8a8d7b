"""The console as a process of its own: settings, readiness, heartbeat, metrics, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from kapsel_store import processes

DEADLINE = 240.0


@pytest.fixture
async def start(database) -> AsyncIterator[Callable[..., Any]]:
    """Start consoles, with these settings changed."""
    children: list[asyncio.subprocess.Process] = []

    async def start(**settings: str) -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")} | {
            "KAPSEL_DATABASE_URL": database.url,
            "KAPSEL_DATABASE_SCHEMA": database.schema,
            "KAPSEL_DATABASE_ROLE": "kapsel_console",
            "KAPSEL_SEALING_KEY_FILE": str(database.sealing_key_file),
            "KAPSEL_CONSOLE_PORT": "0",
            "KAPSEL_INSTANCE": "console-1",
            **settings,
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "kapsel_console",
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def said(child: asyncio.subprocess.Process, message: str) -> dict[str, Any]:
    """Return the log line with that message."""
    async with asyncio.timeout(DEADLINE):
        assert child.stderr is not None
        while line := await child.stderr.readline():
            record: dict[str, Any] = json.loads(line)
            if record["message"] == message:
                return record
    raise AssertionError(f"never said: {message}")


async def test_it_serves_reports_itself_and_drains(start, world) -> None:
    child = await start()
    port = (await said(child, "answering requests"))["port"]
    async with aiohttp.ClientSession() as session:

        async def text(url: str) -> tuple[int, str]:
            async with session.get(url) as response:
                return response.status, await response.text()

        async with asyncio.timeout(DEADLINE):
            while not (alive := await processes.list_live(world.connection)) or alive[0].generation != 1:
                await asyncio.sleep(0.02)
        assert (alive[0].component, alive[0].instance) == ("console", "console-1")
        assert (await text(f"{alive[0].address}/health/ready"))[0] == 200
        status, content = await text(f"http://127.0.0.1:{port}/api/v1/endpoints")
        assert (status, len(json.loads(content)["items"])) == (200, 2)
        _, measured = await text(f"{alive[0].address}/metrics")
        assert "configuration_generation 1.0" in measured
        assert "database_up 1.0" in measured
        assert 'console_requests_total{method="GET",route="/api/v1/endpoints",status="200"} 1.0' in measured
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), DEADLINE) == 0
    assert await processes.list_live(world.connection) == []


async def test_settings_open_the_log_to_outsiders_and_an_erasure_goes_on_by_itself(start, world, tmp_path) -> None:
    (tmp_path / "token").write_text("a-token-of-this-test\n")
    await world.delivered(1)
    (event,) = await world.put(body=b"forget me")
    await world.attempt()
    child = await start(
        KAPSEL_CONSOLE_TOKEN_FILE=str(tmp_path / "token"),
        KAPSEL_CONSOLE_PUBLIC_LOG="heads",
        KAPSEL_CONSOLE_PUBLIC_RATE="2",
    )
    base = f"http://127.0.0.1:{(await said(child, 'answering requests'))['port']}"
    async with aiohttp.ClientSession() as session:

        async def status(method: str, path: str, **headers: str) -> int:
            async with session.request(method, base + path, headers=headers) as response:
                return response.status

        assert await status("GET", "/checkpoint") == 200
        assert await status("GET", "/tile/entries/000.p/1") == 401
        assert 429 in await asyncio.gather(*(status("GET", "/checkpoint") for _ in range(50)))
        erase = f"/api/v1/events/{event.id}/erase"
        assert await status("POST", erase) == 401
        assert await status("POST", erase, **{"Kapsel-Token": "a-token-of-this-test"}) == 202
        await world.sequence()
        async with asyncio.timeout(DEADLINE):
            while await world.connection.fetchval(
                "SELECT count(*) FROM attempts WHERE event_id = $1 AND payload_hash IS NOT NULL", event.id
            ):
                await asyncio.sleep(0.02)


async def test_it_starts_without_a_database_and_says_so(start) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody@127.0.0.1:{closed.getsockname()[1]}/none"
        child = await start(KAPSEL_DATABASE_URL=url)
        port = (await said(child, "answering requests"))["port"]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/api/v1/events") as response,
        ):
            assert response.status == 503
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), DEADLINE) == 0


async def test_a_setting_it_does_not_know_is_refused_in_one_sentence(start) -> None:
    child = await start(KAPSEL_CONSOLE_PROT="1")
    _, err = await asyncio.wait_for(child.communicate(), DEADLINE)
    assert child.returncode == 2
    assert "did you mean KAPSEL_CONSOLE_PORT?" in err.decode()


async def test_a_console_without_a_token_says_so_if_others_reach_it(start) -> None:
    warning = (
        "whoever reaches this console reads every event and may retry, cancel, resume and erase: "
        "set KAPSEL_CONSOLE_TOKEN_FILE"
    )
    assert (await said(await start(KAPSEL_CONSOLE_HOST="0.0.0.0"), warning))["level"] == "warning"


async def test_a_file_of_tokens_that_gives_none_is_refused_in_one_sentence(start, tmp_path) -> None:
    empty = tmp_path / "token"
    empty.write_text("\n")
    for path, why in ((empty, "it is empty; put one token on each line"), (tmp_path / "none", "it cannot be read")):
        child = await start(KAPSEL_CONSOLE_TOKEN_FILE=str(path))
        _, err = await asyncio.wait_for(child.communicate(), DEADLINE)
        assert child.returncode == 2
        assert f"kapsel-console: KAPSEL_CONSOLE_TOKEN_FILE names '{path}', which gives no token: {why}" in err.decode()

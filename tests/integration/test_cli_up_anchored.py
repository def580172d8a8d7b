"""From a manifest that names a calendar to a proof whose date a block of Bitcoin gives: all of it, as people run it."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from otscalendar import CalendarServer, Chain

MANIFESTS = """\
apiVersion: kapsel.dev/v1alpha1
kind: Relay
metadata: {{name: main, namespace: shop}}
spec:
  egress: {{allowedCIDRs: [127.0.0.1/32], allowHTTP: true}}
---
apiVersion: kapsel.dev/v1alpha1
kind: AttestationLog
metadata: {{name: log, namespace: shop}}
spec:
  origin: log.test/anchored
  publication: {{interval: 1s}}
  anchoring: {{calendars: ["{calendar}"], interval: 1m}}
---
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {{name: orders, namespace: shop}}
spec:
  verification: {{none: {{}}}}
  destinations: [{{name: billing, url: "{destination}"}}]
"""
DEADLINE = 120.0

Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]


@pytest.fixture
async def calendar() -> AsyncIterator[CalendarServer]:
    server = CalendarServer(Chain())
    await server.start()
    yield server
    await server.stop()


async def run(directory: Path, *command: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", *command, cwd=directory, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(child.communicate(), DEADLINE)
    return child.returncode or 0, said.decode()


async def test_a_proof_is_dated_by_a_block_from_manifest_to_verifier(
    directory: Path, calendar: CalendarServer, destination: str, eventually: Eventually
) -> None:
    manifests = directory / "manifests"
    manifests.mkdir()
    (manifests / "all.yaml").write_text(MANIFESTS.format(calendar=calendar.url, destination=destination))
    data = directory / "data"
    up = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "kapsel_cli", "up", str(manifests), "--data-dir", str(data), "--port", "0",
        "--workers", "1", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await dated(directory, data, calendar, up, eventually)
    finally:
        up.send_signal(signal.SIGINT)
        await asyncio.wait_for(up.wait(), DEADLINE)


async def dated(
    directory: Path, data: Path, calendar: CalendarServer, up: asyncio.subprocess.Process, eventually: Eventually
) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:

        async def taken() -> bool:
            assert up.returncode is None, "kapsel up has ended"
            try:
                ingest = json.loads((data / "up.json").read_text())["ingest"]
                async with client.post(f"{ingest}/ingest/shop/orders", data=b"{}") as response:
                    return response.status == 202
            except (OSError, aiohttp.ClientError):
                return False

        async def promised() -> bool:
            return bool(calendar.digests)

        await eventually(taken)
        await eventually(promised)
        console = json.loads((data / "up.json").read_text())["console"]
        async with client.get(f"{console}/api/v1/attempts") as response:
            attempt = (await response.json())["items"][0]["id"]
        async with client.get(f"{console}/.well-known/kapsel/keys.json") as response:
            (directory / "keys.json").write_bytes(await response.read())
    proof = ("kapsel_cli", "proof", attempt, "--anchored", "--data-dir", str(data), "-f", "proof.json")
    code, said = await run(directory, *proof)
    assert (code, "in some hours" in said) == (3, True), said

    height = calendar.mine(int(time.time()))

    async def written() -> bool:
        return (await run(directory, *proof))[0] == 0

    await eventually(written)
    verify = ("kapsel_verifier", "--proof", "proof.json", "--keys", "keys.json", "--explain")
    code, said = await run(directory, *verify)
    assert code == 0, said
    assert f"the timestamp leads to block {height}; give its header with --block-header" in said
    header = ("--block-header", calendar.chain.header(height).hex())
    code, said = await run(directory, *verify, *header, "--min-difficulty", "0", "--require", "anchored")
    assert code == 0, said
    assert f"block {height} commits to it" in said
    code, said = await run(directory, *verify, *header)
    assert code == 33, said
    assert "too easy to make" in said

"""The runbook of a frozen log, docs/fork-recovery.md, as it is written: after an older backup the log goes on."""

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from traffic.destination import Destination
from traffic.producer import Producer

from kapsel_verifier import keys, proof, verify

pytestmark = pytest.mark.acceptance

SECOND = "log.example.com/crash-2"
DEADLINE = 120.0


async def kapsel_log(up: Any, *arguments: str) -> tuple[int, str]:
    """Run `kapsel log` on the data directory, and return its exit code and all that it said."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kapsel_cli", "log", *arguments, "--data-dir", str(up.data_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(child.communicate(), DEADLINE)
    return child.returncode or 0, out.decode()


async def checked(up: Any, says: str) -> str:
    """Examine the log until the examination says something."""
    async with asyncio.timeout(DEADLINE):
        while True:
            _, out = await kapsel_log(up, "check")
            if says in out:
                return out
            await asyncio.sleep(0.5)


async def copy(source: Path, target: Path) -> None:
    """Copy a directory as backups do: with its owners, for Postgres has one of its own."""
    child = await asyncio.create_subprocess_exec("cp", "-a", str(source), str(target))
    assert await child.wait() == 0


def name_origin(path: Path, origin: str) -> None:
    """Change the origin in the manifest of the AttestationLog."""
    declared = list(yaml.safe_load_all(path.read_text()))
    [log] = [document for document in declared if document["kind"] == "AttestationLog"]
    log["spec"]["origin"] = origin
    path.write_text(yaml.safe_dump_all(declared))


async def deliver(up: Any, numbers: range) -> None:
    """Send webhooks until all are delivered, whatever the log does."""
    await Producer(up.ingest).run(numbers)
    connection = await up.connection()
    try:
        async with asyncio.timeout(DEADLINE):
            while await connection.fetchval("SELECT EXISTS (SELECT FROM deliveries_live)"):
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def proven(up: Any) -> dict[str, set[str]]:
    """Verify the proof of every attempt; return the attempts of each log by its origin."""
    connection = await up.connection()
    try:
        attempts = [str(row["id"]) for row in await connection.fetch("SELECT id FROM attempts")]
    finally:
        await connection.close()
    found: dict[str, set[str]] = {}
    console, bodies = up.state["console"], dict[str, bytes]()
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
        for attempt in attempts:
            while attempt not in bodies:
                async with session.get(f"{console}/api/v1/attestation/proof/{attempt}") as answer:
                    body = await answer.read()
                    assert answer.status in (200, 202), body
                    if answer.status == 200:
                        bodies[attempt] = body
                    else:
                        await asyncio.sleep(0.2)
        # After the proofs: a new log brings its key.
        async with session.get(f"{console}/.well-known/kapsel/keys.json") as answer:
            trusted = keys.parse_key_set(await answer.read())
    for attempt, body in bodies.items():
        verified = verify.verify_proof(proof.parse(body), trusted)
        found.setdefault(verified.head.key.name, set()).add(attempt)
    return found


async def test_database_that_was_set_back_is_frozen_and_its_log_is_continued(
    up: Any, destination: Destination, tmp_path: Path
) -> None:
    await up.start()
    await deliver(up, range(20))
    [(origin, before)] = (await proven(up)).items()
    assert await up.stop() == 0
    await copy(up.data_dir, tmp_path / "monday")

    await up.start()
    await deliver(up, range(20, 40))
    assert len((await proven(up))[origin]) > len(before)
    async with aiohttp.ClientSession() as session, session.get(f"{up.state['console']}/checkpoint") as answer:
        newest = tmp_path / "newest.txt"
        newest.write_bytes(await answer.read())
    assert await up.stop() == 0

    shutil.rmtree(up.data_dir)
    await copy(tmp_path / "monday", up.data_dir)
    await up.start()
    await deliver(up, range(40, 60))
    out = await checked(up, "frozen: the log")
    assert "this database is older than what was signed, as a restored backup is" in out

    code, out = await kapsel_log(
        up, "recover", SECOND, "--checkpoint", str(newest), "--reason", "Monday's backup", "--yes"
    )
    assert code == 0, out
    name_origin(up.manifests / "crash.yaml", SECOND)
    found = await proven(up)
    assert found[origin] == before
    assert len(found[SECOND]) >= 20
    assert f"{SECOND}: " in await checked(up, "1 statements")
    code, out = await kapsel_log(up, "check")
    assert code == 0, out
    assert await up.stop() == 0
    # And once more with nothing running: the command starts the database by itself.
    code, out = await kapsel_log(up, "check", "--log", SECOND)
    assert (code, "everything fits; not frozen" in out) == (0, True), out

"""Everything is killed while webhooks flow, and afterwards every id is accounted for.

What must hold: an accepted webhook is exactly one event; each of its deliveries ends delivered; what a destination saw
was recorded, but for the tries that a crash cut off; every attempt is in the log, and its proof verifies.
"""

import asyncio
import random
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import psutil
import pytest
from traffic import within
from traffic.accounts import account, settled
from traffic.destination import Destination
from traffic.producer import Producer

from kapsel_verifier import keys, proof, verify

pytestmark = pytest.mark.acceptance

EVENTS = 600
BACK = 5.0  # seconds after which what was killed is at work again, where a first start takes three
VICTIMS = ("receiver", "deliverer", "attestor", "postgres", "console")


async def kill_at_random(up: Any, rng: random.Random, kills: int, until: asyncio.Event) -> list[str]:
    """Kill `kills` processes, one after the other, each at a random moment after the one before is back."""
    victims = [*VICTIMS, *(rng.choice(VICTIMS) for _ in range(kills - len(VICTIMS)))]
    rng.shuffle(victims)
    for name in victims:
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), rng.uniform(0.1, 0.8))
        victim = None
        async with asyncio.timeout(120):
            while victim is None:
                victim = up.child(name)
                await asyncio.sleep(0.02)
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    return victims


async def reconnecting(up: Any) -> asyncpg.Connection:
    async with asyncio.timeout(120):
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                return await up.connection()
            await asyncio.sleep(0.05)


async def settled_account(up: Any, accepted: dict[str, str], destination: Destination) -> None:
    """Wait until everything has ended, and hold it against what was accepted."""
    connection = await reconnecting(up)
    try:
        await settled(connection)
        await account(connection, accepted, destination)
    finally:
        await connection.close()


async def prove_all(up: Any) -> int:
    """Fetch the proof of every attempt from the console and verify it; return how many there were."""
    connection = await up.connection()
    try:
        attempts = [row["id"] for row in await connection.fetch("SELECT id FROM attempts")]
    finally:
        await connection.close()
    console = up.state["console"]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{console}/.well-known/kapsel/keys.json") as answer:
            trusted = keys.parse_key_set(await answer.read())
        for attempt in attempts:
            async with session.get(f"{console}/api/v1/attestation/proof/{attempt}") as answer:
                assert answer.status == 200, await answer.text()
                verified = verify.verify_proof(proof.parse(await answer.read()), trusted)
                assert verified.leaf.delivery_attempt_id == str(attempt)
    return len(attempts)


async def at_work(up: Any, number: int, destination: Destination) -> None:
    """Wait until a webhook that is sent now was accepted and delivered, and the console has its proof."""
    producer = Producer(up.ingest)
    await producer.run([number])
    (event,) = producer.accepted.values()
    async with asyncio.timeout(120), aiohttp.ClientSession() as session:
        while not destination.seen["/steady"][event]:
            await asyncio.sleep(0.02)
        proven, attempt = 0, None
        while proven != 200:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, aiohttp.ClientError):
                if attempt is None:
                    connection = await reconnecting(up)
                    attempt = await connection.fetchval(
                        "SELECT id FROM attempts WHERE event_id = $1 AND url LIKE '%/steady'", UUID(event)
                    )
                    await connection.close()
                async with session.get(f"{up.state['console']}/api/v1/attestation/proof/{attempt}") as answer:
                    proven = answer.status
            await asyncio.sleep(0.02)


async def first_start(up: Any, destination: Destination) -> float:
    """Start it on nothing; return how many seconds that took, which is what this machine can do just now."""
    began = time.monotonic()
    await up.start()
    await at_work(up, 999, destination)
    return time.monotonic() - began


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_whatever_is_killed(up: Any, destination: Destination, seed: int) -> None:
    await up.start("--workers", "1")
    producer = Producer(up.ingest)
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(kill_at_random(up, random.Random(seed), 8, done))
        await producer.run(range(EVENTS))
        done.set()
    assert set(killing.result()) == set(VICTIMS)
    assert len(producer.accepted) == EVENTS
    await settled_account(up, producer.accepted, destination)
    assert await prove_all(up) >= 2 * EVENTS
    assert await up.stop() == 0


async def test_whatever_is_killed_its_successor_is_at_work_in_seconds(up: Any, destination: Destination) -> None:
    started = await first_start(up, destination)
    for number, name in enumerate(VICTIMS):
        up.child(name).kill()
        with within(max(BACK, started)):
            await at_work(up, number, destination)
    assert await up.stop() == 0


async def test_a_killed_supervisor_leaves_nothing_behind_and_the_next_one_goes_on(
    up: Any, destination: Destination
) -> None:
    started = await first_start(up, destination)
    producer = Producer(up.ingest)
    await producer.run(range(100))
    await up.kill()
    with within(max(BACK, started)):
        await up.start()
        await at_work(up, 1000, destination)
    late = Producer(up.ingest)
    await late.run(range(150))
    assert {key: late.accepted[key] for key in producer.accepted} == producer.accepted
    await settled_account(up, late.accepted, destination)
    assert await up.stop() == 0


async def test_a_drained_instance_goes_on_where_it_stopped(up: Any, destination: Destination) -> None:
    await up.start()
    producer = Producer(up.ingest)
    await producer.run(range(100))
    assert await up.stop() == 0
    await up.start()
    await settled_account(up, producer.accepted, destination)
    assert await prove_all(up) >= 200
    assert await up.stop() == 0

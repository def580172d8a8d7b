"""Everything is killed while webhooks flow, and afterwards every id is accounted for.

What must hold: an accepted webhook is exactly one event; each of its deliveries ends delivered; what a destination saw
was recorded, but for the tries that a crash cut off; every attempt is in the log, and its proof verifies.
"""

import asyncio
import random
from contextlib import suppress
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import psutil
import pytest

from kapsel_verifier import keys, proof, verify

pytestmark = pytest.mark.acceptance

EVENTS = 600
VICTIMS = ("receiver", "deliverer", "attestor", "postgres", "console")


async def kill_at_random(up: Any, rng: random.Random, kills: int, until: asyncio.Event) -> list[str]:
    """Kill `kills` processes, one after the other, each at a random moment after the one before is back."""
    victims = [*VICTIMS, *(rng.choice(VICTIMS) for _ in range(kills - len(VICTIMS)))]
    rng.shuffle(victims)
    for name in victims:
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), rng.uniform(0.1, 0.8))
        victim = None
        async with asyncio.timeout(30):
            while victim is None:
                victim = up.child(name)
                await asyncio.sleep(0.02)
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    return victims


async def settled(up: Any) -> None:
    """Wait until no delivery is under way and every attempt has its leaf, under a head that is published."""
    connection = await reconnecting(up)
    try:
        async with asyncio.timeout(90):
            while await connection.fetchval(
                """SELECT EXISTS (SELECT FROM deliveries_live) OR EXISTS (SELECT FROM unsequenced)
                       OR (SELECT tree_size FROM logs) > coalesce((SELECT max(tree_size) FROM heads), 0)"""
            ):
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def reconnecting(up: Any) -> asyncpg.Connection:
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                return await up.connection()
            await asyncio.sleep(0.05)


async def account(up: Any, accepted: dict[str, str], destination: Any) -> None:
    """Hold what is stored against what was accepted and what the destinations saw."""
    connection = await up.connection()
    try:
        events = {row["id"] for row in await connection.fetch("SELECT id FROM events")}
        assert {UUID(event) for event in accepted.values()} <= events
        assert len(set(accepted.values())) == len(accepted)
        deliveries = await connection.fetch("SELECT event_id, state FROM deliveries")
        assert {row["state"] for row in deliveries} == {"delivered"}
        assert len(deliveries) == 2 * len(events)
        recorded = await connection.fetch("SELECT event_id, url, outcome, number FROM attempts")
        assert await connection.fetchval("SELECT count(*) FROM leaves") == len(recorded)
    finally:
        await connection.close()
    for path, seen in destination.seen.items():
        delivered = {row["event_id"] for row in recorded if row["url"].endswith(path) and row["outcome"] == "delivered"}
        assert delivered == events
        assert {UUID(identifier) for identifier in seen} == events
        tries = [row for row in recorded if row["url"].endswith(path)]
        answered = [row for row in tries if row["outcome"] in ("delivered", "refused")]
        assert len(answered) <= seen.total()


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


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_whatever_is_killed(up: Any, destination: Any, make_producer: Any, seed: int) -> None:
    await up.start("--workers", "1")
    producer = make_producer(up.state["ingest"])
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(kill_at_random(up, random.Random(seed), 8, done))
        await producer.run(EVENTS)
        done.set()
    assert set(killing.result()) == set(VICTIMS)
    assert len(producer.accepted) == EVENTS
    await settled(up)
    await account(up, producer.accepted, destination)
    assert await prove_all(up) >= 2 * EVENTS
    assert await up.stop() == 0


async def test_a_killed_supervisor_leaves_nothing_behind_and_the_next_one_goes_on(
    up: Any, destination: Any, make_producer: Any
) -> None:
    await up.start()
    producer = make_producer(up.state["ingest"])
    await producer.run(100)
    await up.kill()
    await up.start()
    late = make_producer(up.state["ingest"])
    await late.run(150)
    assert {key: late.accepted[key] for key in producer.accepted} == producer.accepted
    await settled(up)
    await account(up, late.accepted, destination)
    assert await up.stop() == 0


async def test_a_drained_instance_goes_on_where_it_stopped(up: Any, destination: Any, make_producer: Any) -> None:
    await up.start()
    producer = make_producer(up.state["ingest"])
    await producer.run(100)
    assert await up.stop() == 0
    await up.start()
    await settled(up)
    await account(up, producer.accepted, destination)
    assert await prove_all(up) >= 200
    assert await up.stop() == 0

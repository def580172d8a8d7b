"""The real process: what it says of itself, how it ends, and that kill -9 at any moment loses and doubles nothing."""

import asyncio
import random
import signal

import aiohttp
import pytest
from traffic import within

from kapsel_store import processes


async def flow(world, recorded: list, stop: asyncio.Event) -> None:
    """Record attempts until told to stop, in bursts of odd sizes."""
    rng = random.Random(5)
    while not stop.is_set():
        recorded += await world.record(rng.randrange(1, 12))
        await asyncio.sleep(0.05)


async def test_killed_at_random_moments_it_loses_and_doubles_nothing(world, eventually) -> None:
    rng = random.Random(11)
    recorded, stop = [], asyncio.Event()
    flowing = asyncio.create_task(flow(await world.beside(), recorded, stop))

    async def moved(since: int) -> bool:
        return (await world.log()).tree_size > since

    await world.start_process()
    await world.head_over(0)
    for _ in range(4):
        await eventually(moved, (await world.log()).tree_size)
        # Somewhere within the second that holds an append, a fence and a head.
        await asyncio.sleep(rng.random())
        child = world.children[-1]
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await world.start_process()
    stop.set()
    await flowing
    await world.head_over(len(recorded))
    assert (await world.log()).frozen_reason is None
    await world.audit(recorded)


async def test_two_processes_at_once_keep_one_log_and_one_takes_over_from_the_other(world, eventually) -> None:
    recorded, stop = [], asyncio.Event()
    flowing = asyncio.create_task(flow(await world.beside(), recorded, stop))
    await asyncio.gather(world.start_process(), world.start_process())
    await world.head_over(1)

    seen: set[str] = set()

    async def have_begun() -> bool:
        seen.update(row.instance for row in await processes.list_live(world.connection))
        return len(seen) == len(world.children)

    for child in world.children[:2]:  # one of which leads
        await eventually(have_begun)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        with within(0.5):  # the wait of who stands by; the interval of publication is next to nothing here
            await world.head_over((await world.log()).tree_size + 1)
        await world.start_process()
    stop.set()
    await flowing
    await world.head_over(len(recorded))
    await world.audit(recorded)


async def test_sigterm_publishes_what_has_arrived_and_ends_well(world) -> None:
    child = await world.start_process()
    await world.head_over(0)
    recorded = await world.record(500)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 240) == 0
    await world.audit(recorded)


async def test_process_says_where_its_health_is_and_measures_the_log(world, eventually) -> None:
    async def measured(metric: str, value: float) -> dict[str, float] | None:
        rows = await processes.list_live(world.connection)
        if not rows:
            return None
        async with aiohttp.ClientSession() as session, session.get(f"{rows[0].address}/metrics") as answer:
            lines = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
        values = {name: float(said) for name, _, said in (line.rpartition(" ") for line in lines)}
        return values if values[metric] == value else None

    async with world.led_elsewhere():
        await world.start_process()
        await world.record(30)
        values = await eventually(measured, "attestation_leaf_lag", 30)
        assert 0 < values["attestation_leaf_lag_seconds"] < 600
    await world.head_over(30)
    values = await eventually(measured, "attestation_leaf_lag", 0)
    assert values["attestation_leaf_lag_seconds"] == 0
    values = await eventually(measured, "attestation_tree_size", 30)
    assert 0 < values["attestation_head_age_seconds"] < 600
    assert values["attestation_frozen"] == 0
    assert values['attestation_batches_total{result="integrated"}'] >= 1
    assert values["configuration_generation"] == 1
    assert values["database_up"] == 1
    [row] = await processes.list_live(world.connection)
    assert (row.component, row.generation) == ("attestor", 1)
    async with aiohttp.ClientSession() as session, session.get(f"{row.address}/health/ready") as answer:
        assert (answer.status, (await answer.json())["checks"]["log"]) == (200, "ok")


async def test_frozen_log_is_told_to_whoever_asks_for_readiness(world, eventually) -> None:
    await world.start_process()
    await world.head_over(0)
    world.fence_file.unlink()
    await world.record(1)

    async def refused() -> dict | None:
        rows = await processes.list_live(world.connection)
        if not rows:
            return None
        async with aiohttp.ClientSession() as session, session.get(f"{rows[0].address}/health/ready") as answer:
            return await answer.json() if answer.status == 503 else None

    found = await eventually(refused)
    assert "is missing: put its newest copy back" in found["checks"]["log"]


@pytest.mark.parametrize(
    ("fences", "expected"),
    [
        ({"KAPSEL_ATTESTOR_FENCE_FILE": None}, b"is needed, and neither is set"),
        ({"KAPSEL_ATTESTOR_FENCE_LOG": "shop/log"}, b"is needed, and both are set"),
        (
            {"KAPSEL_ATTESTOR_FENCE_FILE": None, "KAPSEL_ATTESTOR_FENCE_LOG": "log"},
            b"KAPSEL_ATTESTOR_FENCE_LOG is 'log'",
        ),
        (
            {"KAPSEL_ATTESTOR_FENCE_FILE": None, "KAPSEL_ATTESTOR_FENCE_LOG": "shop/log"},
            b"KAPSEL_ATTESTOR_FENCE_LOG needs a Kubernetes API",
        ),
    ],
)
async def test_process_without_one_place_for_its_fence_is_refused_with_the_setting(world, fences, expected) -> None:
    child = await world.start_process(KUBERNETES_SERVICE_HOST=None, **fences)
    _, told = await child.communicate()
    assert child.returncode == 2
    assert expected in told

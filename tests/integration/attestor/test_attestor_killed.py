"""kill -9 of the real process while attempts flow: the log has no gap, no double, and a proof for every attempt."""

import asyncio
import random
import signal


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


async def test_two_processes_at_once_keep_one_log(world) -> None:
    recorded, stop = [], asyncio.Event()
    flowing = asyncio.create_task(flow(await world.beside(), recorded, stop))
    await asyncio.gather(world.start_process(), world.start_process())
    await world.head_over(1)
    for child in world.children[:1]:
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await world.head_over((await world.log()).tree_size + 1)
    stop.set()
    await flowing
    await world.head_over(len(recorded))
    await world.audit(recorded)


async def test_sigterm_publishes_what_has_arrived_and_ends_well(world) -> None:
    child = await world.start_process()
    await world.head_over(0)
    recorded = await world.record(500)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 20) == 0
    await world.audit(recorded)

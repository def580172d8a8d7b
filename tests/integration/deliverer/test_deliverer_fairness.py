"""Destinations that never answer, or whose names hang, beside others that do: who still gets deliveries."""

import asyncio
from datetime import timedelta

import pytest
from aiohttp import web
from system_names import System

from kapsel_store.facts import gather
from kapsel_store.states import State

PLACES = 64
LONG = timedelta(minutes=10)  # nothing here waits for it


@pytest.fixture
def put_for(shop):
    """Store events for one destination alone."""

    async def put_for(row, count, **fields):
        every, shop.destinations = shop.destinations, [row]
        try:
            return await shop.put(count, **fields)
        finally:
            shop.destinations = every

    return put_for


@pytest.fixture
async def hanging(kit):
    """A server that takes every request and never answers."""

    async def hang(_reader, _writer) -> None:
        await asyncio.Event().wait()

    async with kit.Raw(hang) as raw:
        yield raw


async def test_destinations_that_hang_with_places_for_all_leave_some_to_one_that_answers(
    destination, shop, start, kit, put_for, hanging
) -> None:
    for _ in range(4):
        *_, left = await put_for(await shop.send_to(hanging.url, timeout=LONG, max_in_flight=1000), 100)
    good = await shop.send_to(destination.url)
    deliverer = await start(deliverer_concurrency=PLACES, drain_timeout=4)

    async def full() -> bool:
        return hanging.connections >= PLACES * 3 // 4 and await deliverer.metric("worker_pool_waiting") == 4

    await kit.eventually(full, "three quarters of the places that hang")

    async def told() -> bool:
        async with shop.pool.acquire() as connection:
            facts = await gather(connection, left)
        return facts is not None and facts.lacking == 1

    await kit.eventually(told, "a deliverer that says for whom it has no place")
    await shop.ends(State.DELIVERED, *await put_for(good, 50))
    # Also to one that this deliverer has never seen.
    await shop.ends(State.DELIVERED, *await put_for(await shop.send_to(destination.url), 50))
    assert hanging.connections == PLACES * 3 // 4


async def test_a_destination_that_answered_and_hangs_now_leaves_places_to_the_others(
    destination, shop, start, kit, put_for
) -> None:
    hangs = False

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if hangs and request.path == "/turning":
            await asyncio.Event().wait()
        return web.Response()

    destination.answer = answer
    turning = await shop.send_to(destination.url.replace("/hooks", "/turning"), timeout=LONG, max_in_flight=1000)
    good = await shop.send_to(destination.url)
    deliverer = await start(deliverer_concurrency=PLACES, drain_timeout=4)
    await shop.ends(State.DELIVERED, *await put_for(turning, 20))
    hangs = True
    await put_for(turning, 200)

    async def full() -> bool:
        return await deliverer.metric("worker_pool_busy") == PLACES * 7 // 8

    await kit.eventually(full, "all places but the last eighth that hang")
    await shop.ends(State.DELIVERED, *await put_for(good, 50))
    assert await deliverer.metric("worker_pool_busy") == PLACES * 7 // 8


async def test_large_bodies_for_a_destination_that_hangs_leave_memory_to_the_others(
    destination, shop, start, kit, put_for, hanging
) -> None:
    hung = await shop.send_to(hanging.url, timeout=LONG, max_in_flight=1000)
    await put_for(hung, 60, body=bytes(1024 * 1024))
    good = await shop.send_to(destination.url)
    deliverer = await start(drain_timeout=4)

    async def full() -> bool:
        return await deliverer.metric("worker_pool_waiting") == 1

    await kit.eventually(full, "a destination that has its part of the memory")
    assert hanging.connections < 60
    await shop.ends(State.DELIVERED, *await put_for(good, 20, body=bytes(1024 * 1024)))


async def test_forty_destinations_whose_names_hang_hold_up_none_whose_name_is_found(
    destination, shop, start, kit, put_for, system: System
) -> None:
    system.addresses = ["127.0.0.1"]
    for number in range(40):
        await shop.send_to(f"http://hangs{number}.example/", timeout=LONG)
    *_, left = await shop.put(3)
    good = await shop.send_to(destination.url.replace("127.0.0.1", "shop.example"))
    deliverer = await start(system, drain_timeout=4)

    async def hanging() -> bool:
        return sum(host.startswith("hangs") for host in system.asked) == 40

    await kit.eventually(hanging, "forty names that hang")
    await shop.ends(State.DELIVERED, *await put_for(good, 20))
    # Also to a name that nobody has asked for before.
    await shop.ends(
        State.DELIVERED, *await put_for(await shop.send_to(destination.url.replace("127.0.0.1", "new.example")), 20)
    )
    assert await deliverer.metric("dns_lookups", state="running") == 40

    async def tried() -> bool:
        return len(await shop.attempts(left)) > 0

    await kit.eventually(tried, "a try that was given up")
    hung = (await shop.attempts(left))[0].attempt
    assert (hung.reason, hung.detail) == ("dns", "no answer in time")

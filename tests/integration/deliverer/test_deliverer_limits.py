"""Limits that hold for a destination whatever the number of deliverers: three of them, one Postgres, one server."""

import asyncio
import time
from datetime import timedelta

import pytest
from aiohttp import web

from kapsel_store.rows import CircuitBreaker, Policy, RateLimit
from kapsel_store.states import State


@pytest.fixture
def slow(destination):
    """Make the destination take a moment, so that tries overlap."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response()

    destination.answer = answer


@pytest.mark.parametrize("limit", [1, 2, 7])
@pytest.mark.usefixtures("slow")
async def test_three_deliverers_have_no_more_under_way_than_the_limit_also_when_it_is_less_than_three(
    destination, shop, start, limit
) -> None:
    await shop.send_to(destination.url, max_in_flight=limit)
    for _ in range(3):
        await start()
    for _ in range(3):
        await shop.ends(State.DELIVERED, *await shop.put(20))
    assert destination.most_under_way <= limit
    assert len({received.headers["webhook-id"] for received in destination.received}) == 60


async def test_who_can_use_more_of_the_limit_has_more_of_it(destination, shop, start) -> None:
    many = asyncio.Event()

    async def held(_: web.BaseRequest) -> web.StreamResponse:
        if destination.under_way >= 5:
            many.set()
        await many.wait()
        return web.Response()

    destination.answer = held
    await shop.send_to(destination.url, max_in_flight=6, timeout=timedelta(seconds=60))
    await start()
    await start(deliverer_concurrency=1)
    # Nothing is answered before five of the six slots are in use, and one of the two can use but one.
    await shop.ends(State.DELIVERED, *await shop.put(30))
    assert destination.most_under_way <= 6


async def test_three_deliverers_send_no_faster_than_the_rate(destination, shop, start) -> None:
    await shop.send_to(destination.url, rate_limit=RateLimit(requests_per_second=40, burst=10))
    for _ in range(3):
        await start()
    began = time.monotonic()
    await shop.ends(State.DELIVERED, *await shop.put(60))
    # The burst, and then what the rate lets pass; the clocks of this test and of the database may differ a little.
    assert time.monotonic() - began >= (60 - 10) / 40 * 0.98


@pytest.mark.usefixtures("slow")
async def test_what_a_deliverer_had_when_it_died_is_the_others_when_its_lease_is_over(
    destination, shop, start, kit
) -> None:
    await shop.send_to(destination.url, max_in_flight=2)
    dying = await start(deliverer_lease=timedelta(seconds=3))
    await shop.ends(State.DELIVERED, *await shop.put(4))
    async with shop.pool.acquire() as connection:
        held = await connection.fetchval("SELECT grants ->> $1 FROM slots", dying.settings.instance)
    assert held is not None
    dying.task.cancel()
    await asyncio.gather(dying.task, return_exceptions=True)
    await start(deliverer_lease=timedelta(seconds=3))
    await shop.ends(State.DELIVERED, *await shop.put(20))
    assert destination.most_under_way <= 2


async def test_a_deliverer_that_leaves_gives_its_slots_to_the_next(destination, shop, start) -> None:
    await shop.send_to(destination.url, max_in_flight=2)
    leaving = await start(deliverer_lease=timedelta(hours=1))
    await shop.ends(State.DELIVERED, *await shop.put(4))
    await leaving.stop()
    async with shop.pool.acquire() as connection:
        assert await connection.fetchval("SELECT grants FROM slots") == "{}"
    await start(deliverer_lease=timedelta(hours=1))
    await shop.ends(State.DELIVERED, *await shop.put(4))


async def test_a_destination_without_work_and_one_without_a_rate_cost_no_row(destination, shop, start) -> None:
    idle = await shop.send_to("http://127.0.0.1:9/", suspend=True, rate_limit=RateLimit(requests_per_second=1, burst=1))
    busy = await shop.send_to(destination.url)
    await start()
    [_, delivery] = await shop.put()
    await shop.ends(State.DELIVERED, delivery)
    async with shop.pool.acquire() as connection:
        slots = [row[0] for row in await connection.fetch("SELECT destination_id FROM slots")]
        buckets = await connection.fetchval("SELECT count(*) FROM buckets")
    assert slots == [busy.id]
    assert idle.id not in slots
    assert buckets == 0


async def test_what_waited_behind_a_circuit_is_drained_at_its_rate_and_then_the_rate_is_over(
    destination, shop, start, kit
) -> None:
    healthy = False

    async def sick(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if healthy else 500)

    destination.answer = sick
    breaker = CircuitBreaker(
        min_attempts=5, probes=2, open_for=timedelta(milliseconds=500), recovery=timedelta(0), drain=20.0
    )
    row = await shop.send_to(
        destination.url, policy=Policy(backoff=kit.QUICK, max_attempts=10_000, circuit_breaker=breaker), max_in_flight=4
    )
    for _ in range(2):
        await start()
    made = await shop.put(40)

    async def is_open() -> bool:
        circuit = await shop.circuit(row.id)
        return circuit is not None and circuit.state == "open"

    await kit.eventually(is_open, "an open circuit")
    healthy = True
    began = time.monotonic()
    await shop.ends(State.DELIVERED, *made)
    # Two probes, a burst of two, and a few that were under way when it healed: the rest at the rate.
    assert time.monotonic() - began >= (40 - 2 - 2 - 8) / 20 * 0.98

    async def is_over() -> bool:
        circuit = await shop.circuit(row.id)
        return circuit is not None and circuit.state == "closed" and circuit.recovering_since is None

    await kit.eventually(is_over, "the end of the recovery")


async def test_a_destination_that_only_fails_is_warned_of_then_disabled_and_resumed_with_what_waited(
    destination, shop, start, kit
) -> None:
    healthy = False

    async def sick(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if healthy else 500)

    destination.answer = sick
    breaker = CircuitBreaker(min_attempts=100_000, disable_after=timedelta(seconds=2), warn_at=0.5)
    policy = Policy(backoff=kit.QUICK, max_attempts=1_000_000, circuit_breaker=breaker)
    row = await shop.send_to(destination.url, policy=policy)
    deliverer = await start()
    label = f"shop/orders/{row.name}"
    [delivery] = await shop.put()

    async def warned() -> bool:
        circuit = await shop.circuit(row.id)
        return circuit is not None and circuit.warned_at is not None

    async def disabled() -> bool:
        return await deliverer.metric("circuit_breaker_state", destination=label) == 3

    await kit.eventually(warned, "a warning")
    await kit.eventually(disabled, "a destination that is disabled")
    circuit = await shop.circuit(row.id)
    assert circuit is not None
    assert circuit.disabled_reason == "failing"
    assert circuit.warned_at - circuit.failing_since >= timedelta(seconds=1)
    assert circuit.disabled_at - circuit.warned_at >= timedelta(seconds=1)
    assert await deliverer.metric("destination_disable_warning", destination=label) == 0
    # What waits is kept, and uses up none of its tries.
    assert (await shop.delivery(delivery)).state is State.PENDING
    healthy = True
    await shop.change(row, timeout=timedelta(seconds=14))
    await shop.ends(State.DELIVERED, delivery)

"""Order by key as a destination sees it: several deliverers, failures and crashes, and never a later one first."""

import asyncio
import json
import random
from collections import defaultdict
from datetime import timedelta
from uuid import UUID

import pytest
from aiohttp import web

from kapsel_store import deliveries, turns
from kapsel_store.rows import Backoff, NewDelivery, Ordering, Policy
from kapsel_store.states import State

LINES = [f"c-{number}" for number in range(6)]
SOON = Backoff(initial=timedelta(milliseconds=5), factor=1, max=timedelta(milliseconds=5), jitter=0)


async def put(shop, kit, row, key: str, number: int) -> UUID:
    """Store one event of a key."""
    delivery = NewDelivery(
        id=kit.ids.new(),
        destination_id=row.id,
        max_age=row.policy.max_age,
        order_key=turns.digest(row.id, key),
        order_shown=key,
    )
    body = json.dumps({"key": key, "number": number}).encode()
    [delivery_id] = await shop.put(body=body, deliveries=(delivery,))
    return delivery_id


def seen(destination) -> dict[str, list[int]]:
    """Return the numbers that came to the destination, by key."""
    found = defaultdict(list)
    for received in destination.received:
        body = json.loads(received.body)
        found[body["key"]].append(body["number"])
    return found


def repeats_alone(numbers: list[int]) -> bool:
    """Whether each number comes as often as it likes, and none before one that is smaller."""
    return numbers == sorted(numbers)


@pytest.mark.parametrize("seed", range(3))
async def test_several_deliverers_keep_the_order_of_each_key_through_failures(
    destination, shop, start, kit, seed: int
) -> None:
    rng = random.Random(seed)
    under_way: set[str] = set()
    together = []

    async def moody(request: web.BaseRequest) -> web.StreamResponse:
        key = json.loads(destination.received[-1].body)["key"]
        together.append(key in under_way)
        under_way.add(key)
        await asyncio.sleep(rng.choice((0, 0, 0.005)))
        under_way.discard(key)
        return web.Response(status=rng.choice((200, 200, 200, 503)))

    destination.answer = moody
    row = await shop.send_to(
        destination.url,
        policy=Policy(backoff=SOON, max_attempts=1000, circuit_breaker=None),
        ordering=Ordering(key="event.body.key"),
    )
    for _ in range(3):
        await start()
    made = []
    for number in range(8):
        made += await asyncio.gather(*(put(shop, kit, row, key, number) for key in LINES))
    await shop.ends(State.DELIVERED, *made)
    found = seen(destination)
    assert all(repeats_alone(found[key]) for key in LINES)
    assert all(set(found[key]) == set(range(8)) for key in LINES)
    assert not any(together)


async def test_a_key_that_waits_for_its_next_try_delays_no_other(destination, shop, start, kit) -> None:
    async def refuses_one(_: web.BaseRequest) -> web.StreamResponse:
        bad = json.loads(destination.received[-1].body)["key"] == "bad"
        return web.Response(status=503 if bad else 200)

    destination.answer = refuses_one
    row = await shop.send_to(
        destination.url,
        policy=Policy(backoff=Backoff(initial=timedelta(hours=1)), circuit_breaker=None),
        ordering=Ordering(key="event.body.key"),
    )
    await start()
    [first, second] = [await put(shop, kit, row, "bad", number) for number in range(2)]
    others = [await put(shop, kit, row, key, number) for number in range(3) for key in LINES]
    await shop.ends(State.DELIVERED, *others)
    assert [(await shop.delivery(one)).attempts for one in (first, second)] == [1, 0]


async def test_a_blocked_key_is_counted_and_goes_on_when_a_person_says_so(destination, shop, start, kit) -> None:
    destination.statuses = [400]
    row = await shop.send_to(destination.url, ordering=Ordering(key="event.body.key"))
    deliverer = await start()
    first, second = await put(shop, kit, row, "c", 0), await put(shop, kit, row, "c", 1)
    await shop.ends(State.EXHAUSTED, first)

    async def is_counted() -> bool:
        return await deliverer.metric("delivery_order_keys_blocked") == 1

    await kit.eventually(is_counted, "one blocked key")
    assert (await shop.delivery(second)).state is State.PENDING
    async with shop.pool.acquire() as connection:
        again = await deliveries.retry(connection, first)
    assert isinstance(again, UUID)
    await shop.ends(State.DELIVERED, again, second)
    assert seen(destination) == {"c": [0, 0, 1]}


async def test_what_a_deliverer_left_behind_when_it_died_is_passed_on_by_another(
    destination, shop, start, kit, database
) -> None:
    """As if it had died between the record and the pass: the first is delivered, and nobody was told."""
    row = await shop.send_to(destination.url, ordering=Ordering(key="event.body.key"))
    first, second = await put(shop, kit, row, "c", 0), await put(shop, kit, row, "c", 1)
    async with shop.pool.acquire() as connection:
        await connection.execute(
            "UPDATE deliveries SET state = 'cancelled', finished_at = now(), last_reason = 'cancelled' WHERE id = $1",
            first,
        )
    await start()
    await shop.ends(State.DELIVERED, second)


async def test_what_a_filter_does_not_want_gives_the_turn_to_the_next(destination, shop, start, kit) -> None:
    row = await shop.send_to(
        destination.url, ordering=Ordering(key="event.body.key"), filter="event.body.number % 2 == 0"
    )
    await start()
    made = [await put(shop, kit, row, "c", number) for number in range(6)]
    await shop.ends(State.DELIVERED, *made[::2])
    await shop.ends(State.CANCELLED, *made[1::2])
    assert seen(destination) == {"c": [0, 2, 4]}

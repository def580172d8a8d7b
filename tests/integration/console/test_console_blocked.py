"""Order keys that wait for a person: listed, explained, unblocked or retried, by the console and by the commands."""

import json
from dataclasses import replace
from uuid import uuid4

import pytest

from kapsel_store import audit, deliveries, processes, turns
from kapsel_store.rows import Ordering
from kapsel_store.states import State

MANY = 3


@pytest.fixture
async def blocked(world):
    """Three events of one key whose first was given up; two others are blocked by one event each."""
    billing = replace(world.billing, ordering=Ordering(key="event.body.customer"))
    world.billing = billing
    await world.apply(destinations=(billing, world.crm))
    made = (
        await world.put(MANY, key="customer-7") + await world.put(key="customer-8") + await world.put(key="customer-9")
    )
    await world.attempt(State.EXHAUSTED)
    await turns.sweep(world.connection)
    await processes.report(world.connection, "deliverer", "one", "http://127.0.0.1:1", 1)
    await world.connection.execute("UPDATE processes SET seen_at = now() + interval '1 hour'")
    return [event.deliveries[0].id for event in made]


async def test_blocked_keys_are_listed_in_pages_with_what_blocks_them(console, world, blocked) -> None:
    listed, path = [], "/api/v1/blocked?limit=1"
    while path:
        page = await console.get(path)
        assert len(page["items"]) == 1
        listed += page["items"]
        path = page["next"] and f"/api/v1/blocked?limit=1&cursor={page['next']}"
    (found,) = [one for one in listed if one["key"] == "customer-7"]
    assert len(listed) == 3
    assert (found["id"], found["endpoint"], found["destination"]) == (str(blocked[0]), "shop/orders", "billing")
    assert (found["waiting"], found["waiting_more"], found["last_reason"]) == (2, False, "status_500")
    assert (await console.problem("/api/v1/blocked?cursor=AAAA"))[:2] == (400, "parameter_invalid")


async def test_who_waits_in_a_line_is_told_for_whom(console, world, blocked) -> None:
    said = await console.get(f"/api/v1/deliveries/{blocked[2]}/explanation")
    assert [hold["reason"] for hold in said["held_by"]] == ["order_key_blocked"]
    assert str(blocked[0]) in said["held_by"][0]["text"]
    assert (said["reason"], said["next_tries"]) == ("order_key_blocked", [])
    assert said["delivery"]["due_at"] is None
    again = await deliveries.retry(world.connection, blocked[0])
    said = await console.get(f"/api/v1/deliveries/{blocked[2]}/explanation")
    assert said["reason"] == "order_key_waits"
    assert f"customer-7: 2, and {again} goes first" in said["held_by"][0]["text"]


async def test_unblocking_one_key_or_all_is_audited_and_lets_the_next_go(console, world, blocked) -> None:
    path = f"/api/v1/destinations/{world.billing.id}/unblock"
    status, done, _ = await console.ask(f"{path}?delivery={blocked[0]}", method="POST")
    assert (status, done["destination"], done["unblocked"]) == (200, "shop/orders/billing", 1)
    assert [attempt.delivery_id for attempt in await world.attempt()] == [blocked[1]]
    assert (await console.ask(path, method="POST"))[1]["unblocked"] == 2
    assert (await console.ask(path, method="POST"))[1]["unblocked"] == 0
    assert (await console.get("/api/v1/blocked"))["items"] == []
    entries = await audit.page(world.connection, before=None, limit=100)
    actions = [entry.subject for entry in entries if entry.action == "destination.unblock"]
    assert actions == ["destination shop/orders/billing"] * 2
    unknown = f"/api/v1/destinations/{uuid4()}/unblock"
    assert (await console.problem(unknown, method="POST"))[:2] == (404, "unknown_destination")


async def test_the_commands_show_blocked_keys_and_let_them_go(console, world, blocked, kapsel) -> None:
    ran = await kapsel("get", "blocked", "--server", console.url)
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[:5] for line in ran.out.splitlines() if "customer-7" in line] == [
        [str(blocked[0]), "shop/orders", "billing", "customer-7", "status_500"]
    ]
    ran = await kapsel("unblock", "shop/orders/billing", "--delivery", str(blocked[0]), "--server", console.url)
    assert (ran.code, ran.out) == (0, "1 order key goes on at shop/orders/billing\n")
    ran = await kapsel("unblock", str(world.billing.id), "--server", console.url)
    assert ran.out == "2 order keys go on at shop/orders/billing\n"
    ran = await kapsel("get", "blocked", "-o", "json", "--server", console.url)
    assert json.loads(ran.out)["items"] == []

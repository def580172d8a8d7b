"""Explanations by the console and the command, of deliveries as the other processes leave them."""

import json
from uuid import uuid4

from kapsel_store import deliveries, processes
from kapsel_store.states import State


async def alive(world) -> None:
    """Have a deliverer that stays alive however slow the machine is."""
    await processes.report(world.connection, "deliverer", "one", "http://127.0.0.1:1", 1)
    await world.connection.execute("UPDATE processes SET seen_at = now() + interval '1 hour'")


async def due_in(world, wait: str) -> None:
    await world.connection.execute(
        "UPDATE deliveries_live SET due_at = now() + $1::text::interval WHERE state = 'pending'", wait
    )


async def explained(console, delivery_id):
    return await console.get(f"/api/v1/deliveries/{delivery_id}/explanation")


async def test_a_delivery_explains_itself_at_every_step_of_its_life(console, world) -> None:
    (event,) = await world.put()
    (made,) = (one.id for one in event.deliveries)
    assert (await explained(console, made))["reason"] == "no_deliverer"
    await alive(world)
    assert (await explained(console, made))["reason"] == "due"
    await world.attempt(State.PENDING)
    await due_in(world, "10 minutes")
    said = await explained(console, made)
    assert (said["reason"], said["fault"], said["held_by"][0]["reason"]) == (
        *("status_500", "destination", "retry_scheduled"),
    )
    assert (said["next_tries"][0]["number"], said["next_tries"][0]["earliest"]) == (2, said["delivery"]["due_at"])
    await due_in(world, "0")
    (last,) = await world.attempt(State.EXHAUSTED)
    await world.sequence()
    await world.publish()
    said = await explained(console, made)
    assert said["delivery"]["state"] == "exhausted"
    assert [one["number"] for one in said["last_tries"]] == [2, 1]
    assert str(last.id) in said["proof"]
    again = await deliveries.retry(world.connection, made)
    assert str(again) in (await explained(console, made))["ancestry"]
    assert str(made) in (await explained(console, again))["ancestry"]
    assert [one["id"] for one in (await explained(console, again))["deliveries_of_event"]] == [str(made), str(again)]


async def test_a_delivery_that_is_not_there_is_a_problem(console) -> None:
    status, code, _ = await console.problem(f"/api/v1/deliveries/{uuid4()}/explanation")
    assert (status, code) == (404, "unknown_delivery")


async def test_what_exactly_was_wrong_is_told_by_the_explanation_the_attempt_and_the_command(
    console, world, kapsel
) -> None:
    (event,) = await world.put()
    made, exact = str(event.deliveries[0].id), "the event has no customer (character 12)"
    (tried,) = await world.attempt(State.PENDING, detail=exact)
    assert [one["detail"] for one in (await explained(console, made))["last_tries"]] == [exact]
    assert (await console.get(f"/api/v1/attempts/{tried.id}"))["detail"] == exact
    ran = await kapsel("explain", made, "--server", console.url)
    assert (ran.code, ran.err) == (0, "")
    assert exact in " ".join(ran.out.split())


async def test_the_command_lays_it_out_and_gives_it_whole_as_json(console, world, kapsel) -> None:
    (event,) = await world.put()
    await world.attempt(State.PENDING)
    await alive(world)
    await due_in(world, "10 minutes")
    made = str(event.deliveries[0].id)
    ran = await kapsel("explain", made, "--server", console.url)
    assert (ran.code, ran.err) == (0, "")
    first, second, *rest = ran.out.splitlines()
    assert (first, second) == (f"delivery {made} of event {event.id}", "to shop/orders/billing: pending")
    for label in ("Fault", "Held", "Next", "Ends", "Try 1", "Proof", "Replays", "To do"):
        assert any(line.startswith(label) for line in rest), label
    assert any(line.split()[:3] == ["maxAttempts", "kapsel", "12"] for line in rest)
    ran = await kapsel("explain", made, "-o", "json", "--server", console.url)
    assert json.loads(ran.out)["delivery"]["id"] == made

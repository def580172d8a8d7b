"""Explanations by the console and the command, of deliveries as the other processes leave them."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from kapsel_store import circuits, deliveries, limits, processes
from kapsel_store.rows import CircuitBreaker, Policy, RateLimit
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


async def test_limits_that_deliverers_share_and_what_the_circuit_says_are_told(console, world) -> None:
    await alive(world)
    billing = replace(
        world.billing,
        max_in_flight=4,
        rate_limit=RateLimit(requests_per_second=0.01, burst=1),
        policy=Policy(circuit_breaker=CircuitBreaker(recovery=timedelta(hours=1), disable_after=timedelta(days=4))),
    )
    await world.apply(destinations=(billing, world.crm))
    (event,) = await world.put()
    made = event.deliveries[0].id
    hour = timedelta(hours=1)

    asked = {billing.id: limits.Demand(limit=4, wanted=4)}
    await limits.ask(world.connection, "gone", asked, hour)
    [held] = (await explained(console, made))["held_by"]
    assert (held["reason"], "4 of 4 with gone" in held["text"]) == ("slots_held", True)
    await limits.ask(world.connection, "gone", {billing.id: limits.Demand(limit=4, wanted=0)}, hour)

    draw = {billing.id: limits.Draw(limit=billing.rate_limit, need=1)}
    await limits.take(world.connection, "one", draw, hour)
    [held] = (await explained(console, made))["held_by"]
    assert (held["reason"], held["until"] is not None) == ("rate_limited", True)

    await world.apply(destinations=(replace(billing, rate_limit=None), world.crm))
    day = timedelta(days=1)
    await circuits.change(
        world.connection,
        billing.id,
        lambda row, now: replace(row, recovering_since=now, failing_since=now - 3 * day, warned_at=now - day),
    )
    said = await explained(console, made)
    [held] = said["held_by"]
    assert (held["reason"], ", and faster from " in held["text"]) == ("circuit_recovering", True)
    assert said["advice"][0].startswith("Mend the destination: it has done nothing but fail since ")


async def test_that_no_deliverer_has_a_place_is_told(console, world) -> None:
    (event,) = await world.put()
    made = event.deliveries[0].id
    await processes.report(world.connection, "deliverer", "one", "http://127.0.0.1:1", 1, [world.billing.id])
    await world.connection.execute("UPDATE processes SET seen_at = now() + interval '1 hour'")
    assert (await explained(console, made))["reason"] == "places_taken"
    await processes.report(world.connection, "deliverer", "one", "http://127.0.0.1:1", 1, [world.crm.id])
    assert (await explained(console, made))["reason"] == "due"


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

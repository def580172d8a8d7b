"""Replays that a person asks the console for: in the words of manifests, once, audited, and out of their way."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from kapsel_store import audit, partitions, replays
from kapsel_store.replays import Phase
from kapsel_store.rows import ReplayRow
from kapsel_store.states import State

PATH = "/api/v1/replays"


def manifest(name: str = "again", **spec: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "endpointRef": {"name": "orders"},
        "selection": {"from": "2026-03-01T09:00:00Z", "to": "2026-03-01T11:30:00Z"},
    }
    return {
        "apiVersion": "kapsel.dev/v1alpha1",
        "kind": "Replay",
        "metadata": {"namespace": "shop", "name": name},
        "spec": made | spec,
    }


async def actions(world) -> list[tuple[str, str]]:
    entries = await audit.page(world.connection, before=None, limit=100)
    return [(entry.action, entry.subject) for entry in entries if entry.action.startswith("replay.")]


async def complete(world) -> None:
    await world.connection.execute(
        "UPDATE replays SET started_at = now(), counted_at = now(), enqueued_at = now(), completed_at = now()"
    )


async def test_what_is_asked_for_is_a_replay_of_the_words_of_a_manifest(console, world) -> None:
    selection = {
        "from": "2026-03-01T09:00:00Z", "to": "2026-03-01T11:30:00Z", "states": ["exhausted", "cancelled"],
        "reasons": ["status_5xx"], "filter": "event.body.x > 1", "includePending": True,
    }  # fmt: skip
    asked = manifest(destinations=["billing"], selection=selection, rate=7, dryRun=True)
    status, made, response = await console.ask(PATH, method="POST", json=asked)
    assert status == 201
    assert (made["namespace"], made["name"], made["endpoint"]) == ("shop", "again", "shop/orders")
    assert (made["phase"], made["asked"], made["rate"], made["dry_run"]) == ("waiting", True, 7, True)
    assert (made["states"], made["reasons"]) == (["exhausted", "cancelled"], ["status_5xx"])
    assert (made["filter"], made["unjudged"]) == ("event.body.x > 1", 0)
    assert response.headers["Location"] == f"{PATH}/{made['id']}"
    assert await console.get(f"{PATH}/{made['id']}") == made
    row = await world.connection.fetchrow("SELECT destinations, anyway FROM replays")
    assert (row["destinations"], row["anyway"]) == ([world.billing.id], True)
    (entry, *_) = await audit.page(world.connection, before=None, limit=1)
    assert (entry.actor, entry.action, entry.subject) == ("anonymous@127.0.0.1", "replay.ask", "replay shop/again")
    assert json.loads(entry.detail)["spec"]["selection"] == selection


async def test_asking_again_is_the_same_run_and_only_its_pace_may_change(console, world) -> None:
    _, first, _ = await console.ask(PATH, method="POST", json=manifest())
    await complete(world)
    status, again, _ = await console.ask(PATH, method="POST", json=manifest())
    assert (status, again["id"], again["phase"]) == (200, first["id"], "complete")
    status, slower, _ = await console.ask(PATH, method="POST", json=manifest(rate=3, suspend=True))
    assert (status, slower["id"], slower["rate"], slower["suspend"]) == (200, first["id"], 3, True)
    assert await actions(world) == [("replay.ask", "replay shop/again")] * 2


async def test_another_selection_needs_another_name(console, world) -> None:
    await console.ask(PATH, method="POST", json=manifest())
    other = manifest(dryRun=True)
    assert (await console.problem(PATH, method="POST", json=other))[:2] == (409, "replay_name_taken")
    other["metadata"]["name"] = "other"
    assert (await console.ask(PATH, method="POST", json=other))[0] == 201
    assert len(await actions(world)) == 2


async def test_no_plan_of_manifests_takes_away_what_was_asked_for_or_is_in_its_way(console, world) -> None:
    _, made, _ = await console.ask(PATH, method="POST", json=manifest())
    declared = ReplayRow(
        id=uuid4(),
        namespace="shop",
        name="again",
        endpoint_id=world.orders.id,
        destinations=None,
        received_from=datetime(2026, 3, 1, tzinfo=UTC),
        received_to=datetime(2026, 3, 2, tzinfo=UTC),
        states=(State.EXHAUSTED,),
    )
    for rows in ([], [declared], [replace(declared, id=uuid4())], []):
        await replays.apply(world.connection, rows, actor="test")
        assert [one.id for one in await replays.progress(world.connection)] == [row.id for row in rows]
        assert (await console.get(f"{PATH}/{made['id']}"))["phase"] == "waiting"
    await replays.apply(world.connection, [], kept=[("shop", "other")], complete=False, actor="test")
    assert (await console.get(f"{PATH}/{made['id']}"))["phase"] == "waiting"


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"rate": 0}, "spec.rate", "0 is out of bounds; allowed: from 1 up to 100000"),
        ({"rates": 5}, "spec.rates", "there is no field rates here; allowed: did you mean rate?"),
        ({"destinations": ["biling"]}, "spec.destinations[0]", "has no destination biling; allowed: did you mean"),
        ({"ttlSecondsAfterFinished": 5}, "spec.ttlSecondsAfterFinished", "the console deletes no replay"),
        (
            {"selection": {"from": "2026-03-01T09:00:00Z", "to": "2026-03-02T00:00:00Z", "filter": "event.body.x >"}},
            "spec.selection.filter",
            "(character 15)",
        ),
        ({"selection": {"from": "2026-03-01T09:00:00Z"}}, "spec.selection.to", "the field is missing"),
        (
            {"selection": {"from": "2026-03-01T09:00:00Z", "to": "2026-03-02T00:00:00Z", "reasons": ["dnss"]}},
            "spec.selection.reasons[0]",
            "there is no such reason: dnss; allowed: did you mean dns?",
        ),
        (
            {"selection": {"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}},
            "spec.selection.from",
            "from is not before to",
        ),
    ],
)
async def test_what_a_manifest_may_not_say_is_refused_with_its_place(console, world, changed, field, says) -> None:
    status, content, _ = await console.ask(PATH, method="POST", json=manifest(**changed))
    assert (status, content["code"]) == (400, "replay_invalid")
    assert content["problems"][0]["field"] == field
    assert says in content["detail"]
    assert (await console.get(PATH))["items"] == []
    assert await actions(world) == []


async def test_a_body_that_is_no_replay_is_refused_in_words(console, world) -> None:
    for body in (b"", b"{", b'{"kind": "Replay", "kind": "Replay"}', b'{"rate": NaN}', b"[" * 60_000):
        assert (await console.problem(PATH, method="POST", data=body))[:2] == (400, "request_refused")
    relay = manifest() | {"kind": "Relay", "spec": {}}
    assert (await console.problem(PATH, method="POST", json=relay))[:2] == (400, "replay_invalid")
    elsewhere = manifest()
    elsewhere["metadata"]["namespace"] = "other"
    assert (await console.problem(PATH, method="POST", json=elsewhere))[:2] == (404, "unknown_endpoint")


async def test_a_replay_that_was_asked_for_can_be_cancelled_and_asked_for_again(console, world) -> None:
    _, made, _ = await console.ask(PATH, method="POST", json=manifest())
    one = f"{PATH}/{made['id']}"
    for _ in range(2):
        status, stopped, _ = await console.ask(one, method="DELETE")
        assert (status, stopped["phase"]) == (200, "removed")
    status, back, _ = await console.ask(PATH, method="POST", json=manifest())
    assert (status, back["id"], back["phase"]) == (200, made["id"], "waiting")
    assert [action for action, _ in await actions(world)] == ["replay.ask", "replay.cancel", "replay.ask"]
    await complete(world)
    assert (await console.problem(one, method="DELETE"))[:2] == (409, "replay_ended")


async def test_a_namespace_has_no_more_open_replays_than_a_person_oversees(console, world) -> None:
    made = [(await console.ask(PATH, method="POST", json=manifest(f"n{n}")))[1] for n in range(replays.MOST_ASKED)]
    status, code, detail = await console.problem(PATH, method="POST", json=manifest("one-more"))
    assert (status, code) == (409, "too_many_replays")
    assert "shop has 20 replays that people asked for and that have not ended" in detail
    assert "stop one" in detail
    # Those that are there need no more room, and other namespaces have their own.
    assert (await console.ask(PATH, method="POST", json=manifest("n0", rate=3)))[0] == 200
    await world.apply(endpoints=(world.orders, world.other, replace(world.orders, id=uuid4(), namespace="bank")))
    elsewhere = manifest("one-more")
    elsewhere["metadata"]["namespace"] = "bank"
    assert (await console.ask(PATH, method="POST", json=elsewhere))[0] == 201
    await console.ask(f"{PATH}/{made[0]['id']}", method="DELETE")
    assert (await console.ask(PATH, method="POST", json=manifest("one-more")))[0] == 201
    assert (await console.problem(PATH, method="POST", json=manifest("n0")))[:2] == (409, "too_many_replays")
    await complete(world)
    assert (await console.ask(PATH, method="POST", json=manifest("n0")))[0] == 200


async def test_two_who_ask_at_once_do_not_pass_the_limit_together(console, world) -> None:
    for n in range(replays.MOST_ASKED - 1):
        await console.ask(PATH, method="POST", json=manifest(f"n{n}"))
    asked = [console.ask(PATH, method="POST", json=manifest(f"last-{n}")) for n in range(4)]
    assert sorted(status for status, _, _ in await asyncio.gather(*asked)) == [201, 409, 409, 409]


async def test_what_was_asked_for_is_suspended_and_goes_on(console, world) -> None:
    _, made, _ = await console.ask(PATH, method="POST", json=manifest())
    one = f"{PATH}/{made['id']}"
    for verb, phase in (("suspend", "suspended"), ("suspend", "suspended"), ("resume", "waiting")):
        status, changed, _ = await console.ask(f"{one}/{verb}", method="POST")
        assert (status, changed["phase"]) == (200, phase)
    assert [action for action, _ in await actions(world)] == ["replay.resume", "replay.suspend", "replay.ask"]
    await console.ask(one, method="DELETE")
    status, code, detail = await console.problem(f"{one}/resume", method="POST")
    assert (status, code) == (409, "replay_ended")
    assert "ask for the same again" in detail
    assert (await console.problem(f"{PATH}/{uuid4()}/suspend", method="POST"))[:2] == (404, "unknown_replay")


async def test_what_a_manifest_declares_is_not_cancelled_here(console, world) -> None:
    declared = ReplayRow(
        id=uuid4(), namespace="shop", name="again", endpoint_id=world.orders.id, destinations=None,
        received_from=datetime(2026, 3, 1, tzinfo=UTC), received_to=datetime(2026, 3, 2, tzinfo=UTC),
        states=(State.EXHAUSTED,),
    )  # fmt: skip
    await replays.apply(world.connection, [declared], actor="test")
    assert (await console.problem(f"{PATH}/{declared.id}", method="DELETE"))[:2] == (409, "replay_declared")
    status, code, detail = await console.problem(f"{PATH}/{declared.id}/suspend", method="POST")
    assert (status, code) == (409, "replay_declared")
    assert "set suspend: true in it" in detail
    assert [one.phase for one in await replays.progress(world.connection)] == [Phase.WAITING]
    for method in ("GET", "DELETE"):
        assert (await console.problem(f"{PATH}/{uuid4()}", method=method))[:2] == (404, "unknown_replay")


async def test_what_was_asked_for_is_forgotten_with_the_retention_of_what_it_selected(console, world) -> None:
    await console.ask(PATH, method="POST", json=manifest())
    await partitions.maintain(world.connection, datetime.now(UTC) + timedelta(days=40))
    assert len((await console.get(PATH))["items"]) == 1
    await complete(world)
    await partitions.maintain(world.connection, datetime.now(UTC))
    assert len((await console.get(PATH))["items"]) == 1
    await partitions.maintain(world.connection, datetime.now(UTC) + timedelta(days=40))
    assert (await console.get(PATH))["items"] == []


async def test_a_person_asks_follows_and_cancels_on_the_command_line(console, world, kapsel) -> None:
    server = ("--server", console.url)
    ran = await kapsel(
        "replay", "orders", "--from", "2h", "--state", "delivered", "--rate", "5", "--name", "x", *server
    )
    assert ran.code == 0, ran.err
    [made] = (await console.get(PATH))["items"]
    assert ran.out == f"replay {made['id']} is asked for: shop/x\n"
    assert f"kapsel replay --follow {made['id']}" in ran.err
    assert (made["states"], made["rate"]) == (["delivered"], 5)

    ran = await kapsel("replay", "--follow", made["id"], "--wait", "0.1", *server)
    assert (ran.code, ran.out) == (3, "waiting: it has not begun yet\n")
    await complete(world)
    ran = await kapsel("replay", "--follow", made["id"], *server)
    assert (ran.code, ran.out) == (0, "complete: 0 matched, 0 enqueued, 0 delivered\n")
    ran = await kapsel("replay", "--cancel", made["id"], *server)
    assert (ran.code, "is complete; there is nothing left to cancel" in ran.err) == (1, True)

    await kapsel("replay", "shop/orders", "--from", "2h", "--name", "y", *server)
    other = (await console.get(PATH))["items"][1]["id"]
    ran = await kapsel("replay", "--suspend", other, *server)
    assert (ran.code, ran.out) == (0, "replay shop/y is suspended: it has not begun yet\n")
    ran = await kapsel("replay", "--resume", other, *server)
    assert (ran.code, ran.out) == (0, "replay shop/y goes on: it has not begun yet\n")
    ran = await kapsel("replay", "--cancel", other, *server)
    assert (ran.code, ran.out) == (0, "replay shop/y is cancelled: it has not begun yet\n")
    ran = await kapsel("replay", "--follow", other, *server)
    assert (ran.code, ran.out) == (3, "removed: it has not begun yet\n")


async def test_a_cancelled_replay_goes_on_when_it_is_asked_for_in_the_words_that_cancelling_gives(
    console, world, kapsel
) -> None:
    server = ("--server", console.url)
    asked = ("replay", "orders", "--state", "delivered")
    await kapsel(*asked, "--from", "2h", *server)
    [made] = (await console.get(PATH))["items"]
    ran = await kapsel("replay", "--cancel", made["id"], *server)
    _, found, words = ran.err.partition("To have it go on, ask for the same again with: ")
    assert found
    refused = await kapsel("replay", "--resume", made["id"], *server)
    assert f"from {made['received_from']} to {made['received_to']}" in refused.err
    ran = await kapsel(*asked, *words.split(), *server)
    assert ran.out == f"replay {made['id']} is asked for: shop/{made['name']}\n"
    ran = await kapsel("get", "replay", made["id"], "-o", "json", *server)
    assert (json.loads(ran.out)["id"], json.loads(ran.out)["phase"]) == (made["id"], "waiting")


async def test_the_command_line_says_what_is_wrong_with_a_replay(console, world, kapsel) -> None:
    server = ("--server", console.url)
    ran = await kapsel("replay", "orders", "--from", "2h", "--destination", "biling", *server)
    assert ran.code == 1
    assert "spec.destinations[0]: WebhookEndpoint orders has no destination biling" in ran.err
    ran = await kapsel("replay", "orders", "--from", "2h", "--reason", "dns,banana", "--dry-run", *server)
    assert (ran.code, "'banana' is no reason; allowed: one such as dns, status_503 or status_5xx" in ran.err) == (
        2,
        True,
    )
    ran = await kapsel("replay", "orders", *server)
    assert (ran.code, "--from is needed" in ran.err) == (2, True)
    ran = await kapsel("replay", "orders", "--follow", "x", *server)
    assert (ran.code, "give the ENDPOINT to replay" in ran.err) == (2, True)

"""The OpenAPI document: it describes what is served, all of it, and what is answered is as it says."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from openapi_document import operations, resolved, wrong

from kapsel_store import processes, turns
from kapsel_store.rows import (
    Acknowledgement,
    Anchoring,
    Batch,
    KeyRow,
    Ordering,
    RateLimit,
    Transform,
    Witness,
    Witnessing,
)
from kapsel_store.states import State
from kapsel_verifier.cosignature import WitnessKey

PATH = "/api/v1/openapi.json"
LOG = "/api/v1/attestation"
NOBODY = "0190f5fe-7c00-7a00-8000-000000000001"
WITNESS = Witness(name="w", url="https://w.example/", vkey=WitnessKey("w.example/w", bytes(32)).encode())
SIGNS = KeyRow(
    id=UUID(NOBODY), namespace="shop", name="generated/out", version=1, algorithm="Ed25519", secret=bytes(32),
    public=bytes(32), not_before=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
REPLAY = {
    "apiVersion": "kapsel.dev/v1alpha1",
    "kind": "Replay",
    "metadata": {"namespace": "shop", "name": "again"},
    "spec": {
        "endpointRef": {"name": "orders"},
        "selection": {"from": "2026-03-01T09:00:00Z", "to": "2026-03-01T11:30:00Z", "states": ["missing"]},
        "destinations": ["billing"],
    },
}


def path_of(path: str) -> str:
    """Return a path with something in its places."""
    return (
        path.replace("{id}", NOBODY).replace("{log}", "1").replace("{path}", "0/000.p/1").replace("{namespace}", "shop")
    )


async def test_every_route_that_is_served_is_described_and_everything_described_is_served(console) -> None:
    served = {
        (route.method, route.resource.canonical)
        for route in console.app.router.routes()
        if route.method not in ("HEAD", "OPTIONS") and route.resource is not None
    }
    document = await console.get(PATH)
    assert document["openapi"] == "3.1.0"
    assert set(operations(document)) == served
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))


async def test_each_operation_takes_the_parameters_that_are_described_and_no_other(console) -> None:
    for (method, path), operation in operations(await console.get(PATH)).items():
        described = sorted(one["name"] for one in operation["parameters"] if one["in"] == "query")
        status, code, detail = await console.problem(path_of(path) + "?no_such=1", method=method, data=b"{}")
        assert (status, code) == (400, "parameter_unknown"), path
        taken = re.search(r"this path takes (?!no )(.*)", detail)
        assert (taken[1].split(", ") if taken else []) == described, path
        places = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert places == re.findall(r"\{(\w+)\}", path)


@pytest.fixture
async def known(console, world) -> dict[tuple[str, str], list[str]]:
    """A world in which every operation has a good answer, and where each of them finds one."""
    billing = replace(
        world.billing,
        rate_limit=RateLimit(requests_per_second=1000.0, burst=1000),
        acknowledgement=Acknowledgement(),
        filter="true",
        transform=Transform(body="event.body", headers=(("X-A", "'b'"),)),
        ordering=Ordering(key="event.body.a"),
        batch=Batch(),
        secret_headers=(),
        headers=(("X-Team", "billing"),),
    )
    log = replace(
        world.desired.log,
        anchoring=Anchoring(calendars=("https://calendar.example/",), minimum=1),
        witnessing=Witnessing(witnesses=(WITNESS,), quorum=1),
    )
    world.billing = billing
    await world.apply(destinations=(billing, world.crm), log=log, keys=(*world.desired.keys, SIGNS))
    await console.source._refresh()
    for component in ("receiver", "deliverer"):
        await processes.report(world.connection, component, "one", "http://127.0.0.1:1", 1)
    await world.connection.execute("UPDATE processes SET seen_at = now() + interval '1 hour'")
    (proven,) = await world.delivered()
    (blocked,) = await world.put(key="customer-7")
    await world.attempt(State.EXHAUSTED)
    await turns.sweep(world.connection)
    (waiting,) = await world.put(to=world.crm)
    await world.put(to=world.crm)
    tried = await world.attempt(State.PENDING, to=world.crm, count=1)
    (retried, cancelled) = (blocked.deliveries[0].id, waiting.deliveries[0].id)
    _, replay, _ = await console.ask("/api/v1/replays", method="POST", json=REPLAY)
    ids: dict[tuple[str, str], list[Any]] = {
        ("GET", "/api/v1/events/{id}"): [blocked.id, waiting.id],
        ("GET", "/api/v1/deliveries/{id}"): [proven.delivery_id, retried, cancelled],
        ("GET", "/api/v1/deliveries/{id}/explanation"): [proven.delivery_id, retried, cancelled],
        ("GET", "/api/v1/attempts/{id}"): [proven.id, tried[0].id],
        ("GET", "/api/v1/replays/{id}"): [replay["id"]],
        ("POST", "/api/v1/deliveries/{id}/retry"): [retried],
        ("POST", "/api/v1/deliveries/{id}/cancel"): [cancelled],
        ("POST", "/api/v1/destinations/{id}/resume"): [world.billing.id],
        ("POST", "/api/v1/destinations/{id}/unblock"): [world.billing.id],
        ("POST", "/api/v1/events/{id}/erase"): [blocked.id],
        ("POST", "/api/v1/replays/{id}/suspend"): [replay["id"]],
        ("POST", "/api/v1/replays/{id}/resume"): [replay["id"]],
        ("DELETE", "/api/v1/replays/{id}"): [replay["id"]],
    }
    return {operation: [str(one) for one in found] for operation, found in ids.items()} | {
        ("GET", ""): [str(proven.id)]  # of everything else that takes an id: a proof
    }


async def test_every_good_answer_is_as_it_is_described(console, known) -> None:
    document = await console.get(PATH)
    # What changes anything comes last, and of that what takes away: first posts, then what deletes.
    ordered = sorted(operations(document).items(), key=lambda one: ("GET", "POST", "DELETE").index(one[0][0]))
    for (method, path), operation in ordered:
        for one in known.get((method, path), known["GET", ""] if "{id}" in path else [""]):
            asked = path_of(path.replace("{id}", one)) + ("?old_size=1" if "consistency" in path else "")
            if "entries" in path:
                asked = asked.replace("0/000", "000")
            options = {"json": REPLAY} if method == "POST" and path.endswith("/replays") else {}
            status, content, response = await console.ask(asked, method=method, **options)
            described = operation["responses"].get(str(status))
            assert described is not None, (asked, status, content)
            schema = described["content"][response.content_type]
            if schema:
                assert wrong(document, schema["schema"], content) == [], asked
            if "items" in (content if isinstance(content, dict) else {}):
                assert content["items"], f"{asked} shows nothing that could be wrong"


async def test_what_is_refused_or_waits_is_as_it_is_described(console, world) -> None:
    document = await console.get(PATH)
    problem = resolved(document, "#/components/responses/Problem")["content"]["application/problem+json"]["schema"]
    invalid = REPLAY | {"spec": {}}
    for path, method, body in (
        ("/api/v1/events?a=1", "GET", None),
        (f"/api/v1/events/{NOBODY}", "GET", None),
        ("/checkpoint", "GET", None),
        ("/api/v1/replays", "POST", invalid),
    ):
        status, content, _ = await console.ask(path, method=method, json=body)
        assert status >= 400
        assert wrong(document, problem, content) == [], path
    await world.put()
    (attempt,) = await world.attempt()
    status, content, _ = await console.ask(f"{LOG}/proof/{attempt.id}")
    described = operations(document)["GET", f"{LOG}/proof/{{id}}"]["responses"]["202"]
    assert status == 202
    assert wrong(document, described["content"]["application/json"]["schema"], content) == []


async def test_what_is_not_there_is_told_as_it_is_described(console) -> None:
    asked = [one for one in operations(await console.get(PATH)) if "{id}" in one[1]]
    assert len(asked) > 15
    for method, path in asked:
        status, code, _ = await console.problem(path_of(path), method=method)  # which looks it up
        assert (status, code.partition("_")[0]) == (404, "unknown"), path
        status, code, _ = await console.problem(path.replace("{id}", "no-id"), method=method)
        assert (status, code) == (400, "parameter_invalid"), path


async def test_a_manifest_that_the_api_takes_is_as_it_is_described(console) -> None:
    document = await console.get(PATH)
    taken = operations(document)["POST", "/api/v1/replays"]["requestBody"]["content"]["application/json"]["schema"]
    assert wrong(document, taken, REPLAY) == []
    assert wrong(document, taken, REPLAY | {"kind": "Relay"}) == ["$.kind is 'Relay' and not 'Replay'"]
    assert wrong(document, taken, REPLAY | {"specs": {}}) == ["$.specs is not described"]

"""What people may do over the console: retry, cancel and resume, each audited in the same transaction."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from kapsel_store import audit, circuits, deliveries
from kapsel_store.states import State


async def actions(world) -> list[tuple[str, str]]:
    entries = await audit.page(world.connection, before=None, limit=100)
    return [(entry.action, entry.subject) for entry in entries if entry.action != "configuration.apply"]


async def stop(world) -> None:
    await world.connection.execute("INSERT INTO circuits (destination_id) VALUES ($1)", world.billing.id)
    await circuits.change(
        world.connection, world.billing.id, lambda row, now: replace(row, disabled_at=now, disabled_reason="gone")
    )


async def test_a_retry_makes_a_new_delivery_and_an_audit_entry(console, world) -> None:
    await world.put()
    (attempt,) = await world.attempt(State.EXHAUSTED)
    status, made, response = await console.ask(f"/api/v1/deliveries/{attempt.delivery_id}/retry", method="POST")
    assert status == 201
    assert (made["state"], made["replay_of"], made["attempts"]) == ("pending", str(attempt.delivery_id), 0)
    assert response.headers["Location"] == f"/api/v1/deliveries/{made['id']}"
    assert (await console.get(response.headers["Location"]))["id"] == made["id"]
    (entry, *_) = await audit.page(world.connection, before=None, limit=1)
    assert (entry.actor, entry.action) == ("anonymous@127.0.0.1", "delivery.retry")
    assert made["id"] in entry.detail
    assert audit.entry_hash(
        entry.previous, at=entry.at, actor=entry.actor, action=entry.action, subject=entry.subject, detail=entry.detail
    ) == entry.hash  # fmt: skip


async def test_a_retry_that_cannot_be_leaves_no_trace(console, world) -> None:
    (event,) = await world.put()
    waiting = event.deliveries[0].id
    assert (await console.problem(f"/api/v1/deliveries/{waiting}/retry", method="POST"))[:2] == (
        409,
        "delivery_not_final",
    )
    assert (await console.problem(f"/api/v1/deliveries/{uuid4()}/retry", method="POST"))[:2] == (
        404,
        "unknown_delivery",
    )
    await world.attempt()
    await world.apply(destinations=(world.crm,))
    assert (await console.problem(f"/api/v1/deliveries/{waiting}/retry", method="POST"))[:2] == (
        409,
        "destination_removed",
    )
    assert await actions(world) == []
    assert len(await deliveries.page(world.connection, now=datetime.now(UTC), limit=10)) == 1


async def test_a_pending_delivery_can_be_cancelled_once(console, world) -> None:
    (event,) = await world.put()
    path = f"/api/v1/deliveries/{event.deliveries[0].id}/cancel"
    status, cancelled, _ = await console.ask(path, method="POST")
    assert (status, cancelled["state"]) == (200, "cancelled")
    assert (await console.problem(path, method="POST"))[:2] == (409, "delivery_not_pending")
    assert (await console.problem(f"/api/v1/deliveries/{uuid4()}/cancel", method="POST"))[:2] == (
        404,
        "unknown_delivery",
    )
    assert await actions(world) == [("delivery.cancel", f"delivery {event.deliveries[0].id}")]


async def test_a_stopped_destination_is_resumed(console, world) -> None:
    await stop(world)
    path = f"/api/v1/destinations/{world.billing.id}/resume"
    status, resumed, _ = await console.ask(path, method="POST")
    assert (status, resumed["destination"], resumed["circuit"]["state"]) == (200, "shop/orders/billing", "closed")
    found = (await circuits.load(world.connection, [world.billing.id]))[world.billing.id]
    assert (found.state, found.disabled_at) == ("closed", None)
    assert await actions(world) == [("destination.resume", "destination shop/orders/billing")]
    assert (await console.ask(path, method="POST"))[0] == 200  # nothing left to do, and nothing more to audit
    assert len(await actions(world)) == 1


async def test_a_destination_that_never_failed_needs_no_resuming(console, world) -> None:
    status, resumed, _ = await console.ask(f"/api/v1/destinations/{world.crm.id}/resume", method="POST")
    assert (status, resumed["circuit"]["state"]) == (200, "closed")
    assert await actions(world) == []


async def test_what_a_manifest_suspends_only_the_manifest_resumes(console, world) -> None:
    await world.apply(destinations=(replace(world.billing, suspend=True), world.crm))
    path = f"/api/v1/destinations/{world.billing.id}/resume"
    assert (await console.problem(path, method="POST"))[:2] == (409, "destination_suspended")
    await world.apply(destinations=(world.crm,))
    assert (await console.problem(path, method="POST"))[:2] == (404, "unknown_destination")

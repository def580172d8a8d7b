"""An event is forgotten: what it said is nowhere in the database, and what others can prove still holds."""

import asyncio
import copy
import hashlib
import json
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from kapsel_console.eraser import Eraser
from kapsel_console.metrics import Metrics
from kapsel_store import audit, deliveries, ids, tlog
from kapsel_store.states import State
from kapsel_tlog import check
from kapsel_verifier import proof as proof_file
from kapsel_verifier.keys import parse_key_set
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import leaf_hash
from kapsel_verifier.verify import verify_proof

from .conftest import LEASE, until

PATH = "/api/v1/attestation"
SECRET = b'{"name": "Erika Mustermann", "iban": "DE02120300000000202051"}'


async def erase(console, event) -> tuple[int, dict]:
    status = 503
    while status == 503:  # rolled back, because one of its deliveries ended at that moment
        status, content, response = await console.ask(f"/api/v1/events/{event.id}/erase", method="POST")
    assert (status == 202) == ("Retry-After" in response.headers)
    return status, content


@pytest.fixture
async def eraser(world, database):
    """Take passes over all erasures, until nothing is left to do."""
    taking = Eraser(await database.pool("console"), Metrics(CollectorRegistry()))

    async def take() -> None:
        while await world.connection.fetchval("SELECT count(*) FROM erasures WHERE NOT complete"):
            await world.connection.execute("UPDATE erasures SET next_at = now()")
            await taking.round()
        await world.connection.execute("UPDATE erasures SET next_at = now()")
        await taking.round()

    return take


async def stored(world) -> str:
    """Everything that is in any table, as text."""
    tables = await world.connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    found = [await world.connection.fetch(f"SELECT t::text FROM {table['relname']} t") for table in tables]
    return "\n".join(row[0] for rows in found for row in rows)


async def test_an_event_is_forgotten_wherever_it_was(console, world) -> None:
    (event,) = await world.put(body=SECRET)
    (other,) = await world.put(body=b'{"name": "somebody else"}')
    attempts = await world.attempt()
    await world.sequence()
    await world.publish()
    # As receivers write them: what makes the event unique, and what its sender calls it.
    await world.connection.execute(
        "UPDATE events SET idempotency_key = $2, correlation_id = 'erika' WHERE id = $1", event.id, bytes(range(32))
    )
    traces = [SECRET.hex(), hashlib.sha256(SECRET).hexdigest(), event.salt.hex(), bytes(range(32)).hex(), "erika"]
    before = await stored(world)
    assert [trace for trace in traces if trace not in before] == []

    status, content = await erase(console, event)

    assert (status, content["complete"], content["attempts"], content["cancelled_deliveries"]) == (200, True, 1, 0)
    after = await stored(world)
    assert [trace for trace in traces if trace in after] == []
    shown = await console.get(f"/api/v1/events/{event.id}")
    assert shown["erased_at"] == content["erased_at"]
    assert {shown[name] for name in ("headers", "body_base64", "body_hash", "size", "correlation_id")} == {None}
    (attempt,) = [one for one in attempts if one.event_id == event.id]
    shown = await console.get(f"/api/v1/attempts/{attempt.id}")
    assert {shown[name] for name in ("payload_hash", "signature_digest", "response_digest", "response_headers")} == {
        None
    }
    assert shown["payload_commitment"] is not None  # says nothing without the salt
    assert (shown["outcome"], shown["response_status"], shown["leaf_index"]) == ("delivered", 200, 0)
    untouched = await console.get(f"/api/v1/events/{other.id}")
    assert (untouched["body_text"], untouched["erased_at"]) == ('{"name": "somebody else"}', None)


async def test_an_attempt_that_cannot_be_put_into_the_log_is_forgotten_at_once(console, world) -> None:
    (event,) = await world.put(body=SECRET)
    (attempt,) = await world.attempt()
    await tlog.park(world.connection, {attempt.id: "CheckViolationError"})

    status, content = await erase(console, event)

    assert (status, content["complete"], content["attempts_without_leaf"]) == (200, True, 0)
    shown = await console.get(f"/api/v1/attempts/{attempt.id}")
    assert (shown["payload_hash"], shown["leaf_index"]) == (None, None)
    assert (await tlog.parked_count(world.connection), await tlog.pending(world.connection, 10)) == (0, [])


async def test_the_proofs_of_others_live_on_and_that_of_the_erased_one_is_its_hash(console, world) -> None:
    await console.source._refresh()
    (event,) = await world.put(body=SECRET)
    await world.put(4)
    mine, *others = await world.attempt()
    await world.sequence()
    await world.publish()
    keys = parse_key_set((await console.raw(f"{PATH}/keys"))[0])
    leaf = proof_file.parse((await console.raw(f"{PATH}/proof/{mine.id}"))[0]).leaf
    kept = {other.id: (await console.raw(f"{PATH}/proof/{other.id}"))[0] for other in others}

    await erase(console, event)

    for other in others:
        raw, _ = await console.raw(f"{PATH}/proof/{other.id}")
        assert raw == kept[other.id]
        verify_proof(proof_file.parse(raw), keys)
    status, content, _ = await console.ask(f"{PATH}/proof/{mine.id}")
    assert (status, content["code"], content["erased"]) == (410, "leaf_erased", True)
    assert (content["leaf_index"], content["leaf_hash"]) == (0, leaf_hash(leaf).hex())
    # The chain of the endpoint still holds: the next leaf names the hash of the one that nobody can read.
    following = Leaf.parse(proof_file.parse(kept[others[0].id]).leaf)
    assert (following.endpoint_sequence, following.previous_leaf_hash) == (1, leaf_hash(leaf))


async def test_a_log_with_erased_leaves_is_rebuilt_and_goes_on(console, world) -> None:
    events = await world.put(6)
    await world.attempt()
    size = await world.sequence()
    head = await world.publish()
    for event in events[1:4]:
        await erase(console, event)
    assert await check.rebuild(world.connection, head.log_id, size) == head.root
    await world.delivered(3)
    root = bytes.fromhex((await console.get(f"{PATH}/sth"))["root_hash"])
    assert await check.rebuild(world.connection, head.log_id, size + 3) == root


async def test_what_waits_is_ended_first_and_what_is_sent_when_it_comes_back(console, world, database) -> None:
    (event,) = await world.put(body=SECRET)
    (waiting,) = await world.put(body=SECRET)
    lease, (claimed,) = await deliveries.claim(world.connection, {world.billing.id: 1}, LEASE)
    assert claimed.event_id == event.id

    assert (await erase(console, waiting))[1]["cancelled_deliveries"] == 1
    shown = await console.get(f"/api/v1/deliveries?event={waiting.id}")
    assert [(one["state"], one["last_reason"]) for one in shown["items"]] == [("cancelled", "event_erased")]

    status, content = await erase(console, event)
    assert (status, content["complete"], content["deliveries_under_way"]) == (202, False, 1)
    # The try ends as it would have, is recorded, and waits for its leaf: its hashes stay for that, its answer does not.
    await deliveries.record(world.connection, [world._result(claimed, world.billing, lease, State.PENDING)])
    status, content = await erase(console, event)
    assert (status, content["cancelled_deliveries"], content["attempts_without_leaf"]) == (202, 1, 1)
    (attempt,) = (await console.get(f"/api/v1/attempts?event={event.id}"))["items"]
    assert attempt["payload_hash"] == hashlib.sha256(SECRET).hexdigest()
    assert (await console.get(f"/api/v1/attempts/{attempt['id']}"))["response_body_base64"] is None
    await world.sequence()
    status, content = await erase(console, event)
    assert (status, content["complete"], content["attempts_without_leaf"]) == (200, True, 0)
    assert hashlib.sha256(SECRET).hexdigest() not in await stored(world)
    assert (await console.ask(f"{PATH}/proof/{attempt['id']}"))[0] == 410


async def test_what_comes_late_is_forgotten_without_being_asked(console, world, database) -> None:
    (event,) = await world.put(body=SECRET)
    await world.attempt()
    assert (await erase(console, event))[0] == 202
    metrics = Metrics(registry := CollectorRegistry())
    stopping = asyncio.Event()
    task = asyncio.create_task(Eraser(await database.pool("console"), metrics).run(stopping))

    async def waits(count: int) -> bool:
        return registry.get_sample_value("erasures_incomplete") == count

    await until(lambda: waits(1))
    await world.sequence()
    await until(lambda: waits(0))
    assert hashlib.sha256(SECRET).hexdigest() not in await stored(world)
    stopping.set()
    await task


async def test_what_a_destination_signed_is_forgotten_too_and_that_it_did_is_not(console, world) -> None:
    (event,) = await world.put(body=SECRET)
    lease, (claimed,) = await deliveries.claim(world.connection, {world.billing.id: 1}, LEASE)
    result = world._result(claimed, world.billing, lease, State.DELIVERED)
    base = f'"content-digest";req: sha-256=:{hashlib.sha256(SECRET).hexdigest()}:'.encode()
    signed = result.attempt._replace(
        acknowledgement="acknowledged",
        acknowledgement_base=base,
        acknowledgement_key=b"\x06" * 32,
        acknowledgement_signature=b"\x07" * 64,
    )
    await deliveries.record(world.connection, [result._replace(attempt=signed)])
    await world.sequence()
    assert base.hex() in await stored(world)
    status, content = await erase(console, event)
    assert (status, content["complete"]) == (200, True)
    left = await stored(world)
    assert base.hex() not in left
    assert (b"\x07" * 64).hex() not in left
    (attempt,) = (await console.get(f"/api/v1/attempts?event={event.id}"))["items"]
    assert attempt["acknowledgement"] == "acknowledged"


async def test_erasing_again_changes_nothing_and_is_audited_once(console, world) -> None:
    (event,) = await world.put()
    await world.attempt()
    await world.sequence()
    _, first = await erase(console, event)
    status, again = await erase(console, event)
    assert (status, again) == (200, first)
    entries = await audit.page(world.connection, before=None, limit=10)
    found = [entry for entry in entries if entry.action == "event.erase"]
    assert [(entry.subject, entry.actor) for entry in found] == [(f"event {event.id}", "anonymous@127.0.0.1")]
    assert json.loads(found[0].detail) == {"attempts": 1, "cancelled_deliveries": 0}


async def test_an_unknown_event_cannot_be_forgotten(console, world) -> None:
    path = f"/api/v1/events/{uuid4()}/erase"
    assert (await console.problem(path, method="POST"))[:2] == (404, "unknown_event")
    assert (await console.problem("/api/v1/events/1/erase", method="POST"))[0] == 400
    assert await world.connection.fetchval("SELECT count(*) FROM erasures") == 0


async def test_without_a_log_nothing_waits_for_one(console, world) -> None:
    await world.apply(log=None)
    (event,) = await world.put(body=SECRET)
    await world.attempt()
    status, content = await erase(console, event)
    assert (status, content["complete"]) == (200, True)
    assert hashlib.sha256(SECRET).hexdigest() not in await stored(world)


async def test_what_is_forgotten_cannot_be_sent_again(console, world) -> None:
    (event,) = await world.put()
    (attempt,) = await world.attempt(State.EXHAUSTED)
    await world.sequence()
    await erase(console, event)
    path = f"/api/v1/deliveries/{attempt.delivery_id}/retry"
    assert (await console.problem(path, method="POST"))[:2] == (409, "event_gone")


async def test_an_erasure_that_fails_stands_in_the_way_of_no_other(world, database, monkeypatch) -> None:
    monkeypatch.setattr("kapsel_console.eraser.BATCH", 1)
    (stuck,) = await world.put(body=SECRET)
    (event,) = await world.put(body=SECRET)
    await world.connection.execute(f"ALTER TABLE events ADD CHECK (id <> '{stuck.id}' OR body IS NOT NULL)")
    for minutes, wanted in ((2, stuck), (1, event)):
        await world.connection.execute(
            "INSERT INTO erasures (event_id, next_at) VALUES ($1, now() - $2 * interval '1 minute')", wanted.id, minutes
        )
    eraser = Eraser(await database.pool("console"), Metrics(CollectorRegistry()))
    assert [await eraser.round() for _ in range(3)] == [0, 1, 0]
    left = await world.connection.fetch("SELECT id FROM events WHERE body IS NOT NULL")
    assert [row["id"] for row in left] == [stuck.id]
    assert await world.connection.fetchval("SELECT count(*) FROM erasures WHERE NOT complete") == 1


async def test_the_row_that_remembers_goes_with_the_event(console, world, database) -> None:
    (event,) = await world.put()
    await world.attempt()
    await world.sequence()
    await erase(console, event)
    await world.connection.execute("DELETE FROM events WHERE id = $1", event.id)  # as its partition is dropped
    await world.connection.execute("UPDATE erasures SET next_at = now()")
    await Eraser(await database.pool("console"), Metrics(CollectorRegistry())).round()
    assert await world.connection.fetchval("SELECT count(*) FROM erasures") == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE attempts SET response_body = NULL",  # not even the owner, but by the function
        "SELECT set_config('kapsel.erasing', id::text, false) FROM events; UPDATE attempts SET url = 'https://x'",
        "SELECT set_config('kapsel.erasing', id::text, false) FROM events; UPDATE attempts SET response_body = 'x'",
        f"SELECT set_config('kapsel.erasing', '{ids.new()}', false); UPDATE attempts SET response_body = NULL",
    ],
)
async def test_attempts_lose_nothing_but_by_erasure(world, change: str) -> None:
    await world.put()
    await world.attempt()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only: UPDATE is refused"):
        await world.connection.execute(change)


@pytest.mark.parametrize("role", ["receiver", "deliverer", "attestor"])
async def test_only_the_console_may_erase(world, database, role: str) -> None:
    (event,) = await world.put()
    connection = await database.connection(role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetch("SELECT * FROM erase_event($1)", event.id)
    await connection.close()


async def test_erasing_while_everything_is_at_work_leaves_no_trace_and_a_log_that_holds(
    console, world, database, eraser
) -> None:
    """Webhooks come, are tried and sequenced by their own connections while every second one is erased."""
    working, sequencing = copy.copy(world), copy.copy(world)
    working.connection, sequencing.connection = await database.connection(), await database.connection()
    events = await world.put(60, body=SECRET)
    stop = asyncio.Event()

    async def deliver() -> None:
        while await working.attempt(State.DELIVERED, count=3):
            await asyncio.sleep(0)

    async def sequence() -> None:
        while not stop.is_set():
            await sequencing.sequence()

    sequencer = asyncio.create_task(sequence())
    delivering = asyncio.create_task(deliver())
    for event in events[::2]:
        await erase(console, event)
    await delivering
    stop.set()
    await sequencer
    await eraser()
    gone, kept = {event.id for event in events[::2]}, {event.id for event in events[1::2]}
    hashes = {
        row["event_id"]: row["payload_hash"]
        for row in await world.connection.fetch("SELECT event_id, payload_hash FROM attempts")
    }
    assert {event for event, digest in hashes.items() if digest is not None} == kept
    assert gone & set(hashes)  # some were tried before they were forgotten, or while they were
    left = await world.connection.fetch(
        "SELECT leaf FROM leaves l JOIN attempts a ON a.id = l.attempt_id WHERE a.event_id = ANY ($1)", list(gone)
    )
    assert {row["leaf"] for row in left} <= {None}
    head = await world.publish()
    assert await check.rebuild(world.connection, head.log_id, head.tree_size) == head.root
    for one in (working, sequencing):
        await one.connection.close()

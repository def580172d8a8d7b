"""Deliveries that go together: each is what it would be alone, and none pays for another more than it must."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import time

import aiohttp
import pytest
from aiohttp import web

from kapsel_deliverer import batches
from kapsel_store import deliveries, turns
from kapsel_store.rows import Backoff, Batch, CircuitBreaker, NewDelivery, Ordering, Policy, RateLimit, Transform
from kapsel_store.states import State

QUICK = Backoff(initial=timedelta(milliseconds=20), factor=1, max=timedelta(milliseconds=20), jitter=0)
PATIENT = Policy(backoff=QUICK, max_attempts=12, circuit_breaker=None)
TEN = Batch(max_events=10, interval=timedelta(milliseconds=100))
EXAMPLES = Path(__file__).parents[3] / "examples" / "batch"
PROGRAMS = ["python/batch.py", "go", "javascript/batch.mjs"]


def items(request) -> list[dict[str, object]]:
    """Return what a request holds."""
    return json.loads(request.body)


def ids_of(request) -> list[str]:
    return [item["headers"]["webhook-id"] for item in items(request)]


def signature(key: bytes, headers: dict[str, str], body: bytes) -> str:
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def refusing(*ids: str, status: int = 400):
    """Return an answer that refuses each request that has one of these."""

    async def answer(request: web.BaseRequest) -> web.Response:
        sent = {item["headers"]["webhook-id"] for item in json.loads(await request.read())}
        return web.Response(status=status if sent & set(ids) else 200)

    return answer


def saying(body: str):
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    return answer


async def test_what_is_due_together_is_one_request_and_each_is_signed_as_if_it_were_alone(destination, shop, start):
    await shop.send_to(destination.url, batch=TEN, headers=(("X-Team", "billing"),))
    bodies = [b'{"order": %d}' % number for number in range(3)]
    ids = [*await shop.put(body=bodies[0]), *await shop.put(body=bodies[1], correlation_id="c1")]
    ids += await shop.put(body=b"\xff\x00", content_type="application/octet-stream")
    await start()
    await shop.ends(State.DELIVERED, *ids)

    (request,) = destination.received
    key = shop.keys[0].secret
    assert (request.headers["content-type"], request.headers["x-team"]) == ("application/json", "billing")
    assert request.headers["webhook-signature"] == signature(key, request.headers, request.body)
    found = {item["headers"]["webhook-id"]: item for item in items(request)}
    assert len(found) == 3
    for delivery_id, body in zip(ids, [*bodies[:2], b"\xff\x00"], strict=True):
        row = await shop.delivery(delivery_id)
        item = found[str(row.event_id)]
        headers = item["headers"]
        sent = item["body"].encode() if "body" in item else base64.b64decode(item["body_base64"])
        assert sent == body
        assert headers["kapsel-attempt"] == "1"
        assert headers["webhook-signature"] == signature(key, headers, sent)

        (attempt,) = [each.attempt for each in await shop.attempts(delivery_id)]
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        lines = "".join(f"{name}: {headers[name]}\n" for name in names)
        assert attempt.signature_digest == hashlib.sha256(lines.encode()).digest()
        assert attempt.payload_hash == hashlib.sha256(body).digest()
        assert (attempt.outcome, attempt.reason, attempt.response_status) == ("delivered", "status_200", 200)
        assert attempt.detail == f"in a batch of 3, webhook-id {request.headers['webhook-id']}"
    assert [item["headers"].get("x-correlation-id") for item in items(request)].count("c1") == 1


async def test_a_full_request_is_followed_by_the_next_at_once_and_what_comes_then_gathers(destination, shop, start):
    seldom = Batch(max_events=10, interval=timedelta(hours=1))
    row = await shop.send_to(destination.url, batch=seldom, max_in_flight=10)
    ids = [delivery for _ in range(25) for delivery in await shop.put()]
    running = await start()
    await shop.ends(State.DELIVERED, *ids)
    assert [len(items(request)) for request in destination.received] == [10, 10, 5]

    later = [delivery for _ in range(7) for delivery in await shop.put()]
    await shop.change(row, batch=TEN)  # a new interval holds at once
    await shop.ends(State.DELIVERED, *later)
    assert [len(items(request)) for request in destination.received] == [10, 10, 5, 7]
    assert await running.metric("delivery_batch_size_count") == 4
    assert await running.metric("delivery_batch_size_sum") == 32


async def test_whom_the_answer_names_is_tried_again_and_the_others_are_delivered(destination, shop, start):
    await shop.send_to(destination.url, batch=TEN, policy=replace(PATIENT, retry_status_codes=()))
    ids = [delivery for _ in range(5) for delivery in await shop.put()]
    rows = [await shop.delivery(delivery) for delivery in ids]
    bad = str(rows[2].event_id)
    said = json.dumps({"batchItemFailures": [{"itemIdentifier": bad}]})

    async def once(request: web.BaseRequest) -> web.Response:
        return await (saying(said) if len(destination.received) == 1 else saying("{}"))(request)

    destination.answer = once
    await start()
    await shop.ends(State.DELIVERED, *ids)
    assert [len(items(request)) for request in destination.received] == [5, 1]
    first, second = [each.attempt for each in await shop.attempts(ids[2])]
    assert (first.outcome, first.reason, first.response_status) == ("refused", "item_failed", 200)
    assert second.outcome == "delivered"
    assert {len(await shop.attempts(delivery)) for delivery in (*ids[:2], *ids[3:])} == {1}


@pytest.mark.parametrize("said", ['{"batchItemFailures": [{"itemIdentifier": "x"}]}', '{"batchItemFailures": 1}'])
async def test_an_answer_that_cannot_be_read_is_a_failure_of_all(destination, shop, start, said):
    await shop.send_to(destination.url, batch=TEN, policy=PATIENT)
    ids = [delivery for _ in range(3) for delivery in await shop.put()]
    destination.answer = saying(said)
    await start()
    await destination.got(3)
    destination.answer = saying("{}")
    await shop.ends(State.DELIVERED, *ids)
    for delivery in ids:
        first = (await shop.attempts(delivery))[0].attempt
        assert (first.outcome, first.reason) == ("refused", "batch_answer_invalid")


@pytest.mark.parametrize("status", [400, 500])
async def test_one_that_is_refused_is_found_by_halves_and_the_others_are_delivered(destination, shop, start, status):
    """400 is not retried where one is alone: in a batch it says nothing of each."""
    await shop.send_to(destination.url, batch=TEN, policy=replace(PATIENT, max_attempts=7))
    ids = [delivery for _ in range(10) for delivery in await shop.put()]
    bad = ids[6]
    destination.answer = refusing(str((await shop.delivery(bad)).event_id), status=status)
    await start()
    await shop.ends(State.DELIVERED, *(one for one in ids if one != bad))
    await shop.ends(State.EXHAUSTED, bad)
    tries = {one: [each.attempt for each in await shop.attempts(one)] for one in ids}
    # 10, 5, 2, then alone.
    assert len(tries[bad]) == (4 if status == 400 else 7)
    assert tries[bad][-1].detail.startswith("in a batch of 1,")
    assert max(len(made) for one, made in tries.items() if one != bad) <= 4


async def test_a_destination_that_is_gone_is_stopped_by_a_batch_too(destination, shop, start, kit):
    row = await shop.send_to(destination.url, batch=TEN, policy=Policy(backoff=QUICK))
    ids = [delivery for _ in range(3) for delivery in await shop.put()]
    destination.statuses = [410]
    await start()
    await shop.ends(State.EXHAUSTED, *ids)

    async def disabled() -> bool:
        circuit = await shop.circuit(row.id)
        return circuit is not None and circuit.disabled_at is not None

    await kit.eventually(disabled)
    assert len(destination.received) == 1


async def test_no_body_is_larger_than_it_may_be_but_of_one_that_is_larger_alone(destination, shop, start):
    await shop.send_to(destination.url, batch=replace(TEN, max_bytes=4096), max_in_flight=32)
    small = [delivery for _ in range(6) for delivery in await shop.put(body=b"x" * 1000)]
    large = await shop.put(body=b"y" * 9000)
    await start()
    await shop.ends(State.DELIVERED, *small, *large)
    lengths = sorted(len(request.body) for request in destination.received)
    assert lengths[-1] > 9000
    assert all(length <= 4096 for length in lengths[:-1])
    assert sum(len(items(request)) for request in destination.received) == 7
    assert len(destination.received) <= 4


async def test_a_request_that_is_answered_waits_for_no_other_of_the_same_claim(destination, shop, start):
    await shop.send_to(destination.url, batch=replace(TEN, max_bytes=4096))
    slow, quick = [(await shop.put(body=letter * 3000))[0] for letter in (b"s", b"q")]
    goes_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.Response:
        if b"sss" in await request.read():
            await goes_on.wait()
        return web.Response()

    destination.answer = answer
    await start()
    await shop.ends(State.DELIVERED, quick)
    assert (await shop.delivery(slow)).state is State.SENDING
    goes_on.set()
    await shop.ends(State.DELIVERED, slow)


async def test_a_request_is_one_try_to_the_circuit(destination, shop, start, kit):
    breaker = CircuitBreaker(min_attempts=3, open_for=timedelta(hours=1))
    policy = Policy(backoff=Backoff(initial=timedelta(hours=1), max=timedelta(hours=1)), circuit_breaker=breaker)
    row = await shop.send_to(destination.url, batch=TEN, policy=policy)
    destination.statuses = [500] * 10
    await start()
    for failures in (1, 2, 3):
        await shop.put(10)
        await destination.got(failures)

        async def counted(wanted: int = failures) -> bool:
            circuit = await shop.circuit(row.id)
            return circuit is not None and circuit.failures + 3 * (circuit.state == "open") >= wanted

        await kit.eventually(counted)
        assert (await shop.circuit(row.id)).state == ("open" if failures == 3 else "closed")


async def test_a_circuit_that_was_open_closes_by_probes_that_go_together(destination, shop, start):
    breaker = CircuitBreaker(min_attempts=1, open_for=timedelta(milliseconds=100), probes=3)
    await shop.send_to(destination.url, batch=TEN, policy=Policy(backoff=QUICK, circuit_breaker=breaker))
    ids = [delivery for _ in range(10) for delivery in await shop.put()]
    destination.statuses = [500, 500]
    await start()
    await shop.ends(State.DELIVERED, *ids)


async def test_who_takes_some_of_the_probes_is_back(destination, shop, start, kit):
    breaker = CircuitBreaker(min_attempts=1, open_for=timedelta(milliseconds=100), probes=3)
    row = await shop.send_to(destination.url, batch=TEN, policy=Policy(backoff=QUICK, circuit_breaker=breaker))
    ids = await shop.put(3)
    bad = str((await shop.delivery(ids[1])).event_id)

    async def answer(request: web.BaseRequest) -> web.Response:
        named = [{"itemIdentifier": bad}] if len(destination.received) == 2 else []
        answered = await saying(json.dumps({"batchItemFailures": named}))(request)
        return web.Response(status=500) if len(destination.received) == 1 else answered

    destination.answer = answer
    await start()
    await shop.ends(State.DELIVERED, *ids)
    assert [len(items(request)) for request in destination.received] == [3, 3, 1]

    async def closed() -> bool:
        circuit = await shop.circuit(row.id)
        return circuit is not None and circuit.state == "closed"

    await kit.eventually(closed)


async def test_what_a_transform_cannot_make_keeps_no_other_from_going(destination, shop, start):
    transform = Transform(body='{"order": event.body.order}', headers=(("X-Order", "string(event.body.order)"),))
    await shop.send_to(destination.url, batch=TEN, transform=transform, policy=replace(PATIENT, max_attempts=1))
    good = [*await shop.put(body=b'{"order": 1}'), *await shop.put(body=b'{"order": 2}')]
    bad = await shop.put(body=b'{"none": 1}')
    await start()
    await shop.ends(State.DELIVERED, *good)
    await shop.ends(State.EXHAUSTED, *bad)
    (request,) = destination.received
    assert {(item["headers"]["x-order"], item["body"]) for item in items(request)} == {
        ("1", '{"order":1}'),
        ("2", '{"order":2}'),
    }
    for delivery, body in zip(good, (b'{"order":1}', b'{"order":2}'), strict=True):
        assert (await shop.attempts(delivery))[0].attempt.sent_hash == hashlib.sha256(body).digest()
    assert (await shop.attempts(bad[0]))[0].attempt.reason == "transform_error"


async def test_a_batch_has_one_of_each_order_key_and_the_next_one_later(destination, shop, start, kit):
    row = await shop.send_to(destination.url, batch=TEN, ordering=Ordering(key="event.body.customer"))
    sent = []
    for number in range(3):
        for customer in ("a", "b", "c"):
            line = {"order_key": turns.digest(row.id, customer), "order_shown": customer}
            one = NewDelivery(id=kit.ids.new(), destination_id=row.id, max_age=row.policy.max_age, **line)
            sent += await shop.put(body=json.dumps({"customer": customer, "n": number}).encode(), deliveries=(one,))
    await start()
    await shop.ends(State.DELIVERED, *sent)
    seen = Counter()
    for request in destination.received:
        bodies = [json.loads(item["body"]) for item in items(request)]
        assert len({body["customer"] for body in bodies}) == len(bodies)
        for body in bodies:
            assert body["n"] == seen[body["customer"]]
            seen[body["customer"]] += 1


async def test_the_rate_counts_deliveries(destination, shop, start):
    await shop.send_to(destination.url, batch=TEN, rate_limit=RateLimit(requests_per_second=1000, burst=4))
    ids = [delivery for _ in range(12) for delivery in await shop.put()]
    await start()
    await shop.ends(State.DELIVERED, *ids)
    assert max(len(items(request)) for request in destination.received) <= 4
    assert sum(len(items(request)) for request in destination.received) == 12


async def test_deliverers_that_share_a_rate_do_not_send_one_by_one(destination, shop, start):
    rate = RateLimit(requests_per_second=60, burst=10)
    await shop.send_to(destination.url, batch=replace(TEN, interval=timedelta(seconds=2)), rate_limit=rate)
    ids = await shop.put(200)
    for _ in range(2):
        await start()
    await shop.ends(State.DELIVERED, *ids)
    assert len(destination.received) <= 60


async def test_nothing_goes_without_a_key_to_sign_with(destination, shop, start):
    shop.keys.clear()
    await shop.send_to(destination.url, batch=TEN, policy=replace(PATIENT, max_attempts=1))
    ids = [delivery for _ in range(3) for delivery in await shop.put()]
    await start()
    await shop.ends(State.EXHAUSTED, *ids)
    assert {(await shop.attempts(one))[0].attempt.reason for one in ids} == {"no_signing_key"}
    assert destination.received == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an example keeps webhooks."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


def secret_file(folder: Path, key: bytes) -> Path:
    """A signing secret as `kapsel secret` prints it."""
    file = folder.with_name("secret")
    file.write_text(f"whsec_{base64.b64encode(key).decode()}\n")
    return file


@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_example_handles_each_webhook_once_and_names_the_one_that_fails(program, run, folder, shop, start):
    url = await run(EXAMPLES / program, secret_file(folder, shop.keys[0].secret), folder)
    pause = timedelta(milliseconds=500)
    policy = replace(PATIENT, backoff=Backoff(initial=pause, factor=1, max=pause, jitter=0), max_attempts=1000)
    await shop.send_to(url, batch=TEN, policy=policy)
    bodies = [b'{"order": 1}', b"fails first", "zw\u00f6lf\r\n\0\u2028\U0001f4e6".encode(), b"\xff\x00\r\n", b""]
    ids = [delivery for body in bodies for delivery in await shop.put(body=body)]
    files = [folder / str((await shop.delivery(one)).event_id) for one in ids]
    in_the_way = files[1].with_name(files[1].name + ".new")
    in_the_way.mkdir()
    await start()
    await shop.ends(State.DELIVERED, ids[0], *ids[2:])
    assert not files[1].exists()
    in_the_way.rmdir()
    await shop.ends(State.DELIVERED, *ids)
    assert [file.read_bytes() for file in files] == bodies

    tries = [[each.attempt for each in await shop.attempts(one)] for one in ids]
    assert {made[0].detail.partition(",")[0] for made in tries} == {"in a batch of 5"}
    assert [made[0].reason for made in tries] == ["status_200", "item_failed", *["status_200"] * 3]
    assert [len(made) for made in (tries[0], *tries[2:])] == [1] * 4
    assert tries[1][-1].reason == "status_200"

    files[0].write_bytes(b"this stays")
    async with shop.pool.acquire() as connection:
        repeated = await deliveries.retry(connection, ids[0])
    await shop.ends(State.DELIVERED, repeated)
    assert files[0].read_bytes() == b"this stays"


NO_BATCHES = [
    b"", b"\xff", b"null", b"{}", b'""', b"[]", b"[1]", b'{"order": 7}', b'[{"order": 7}]',
    b'[{"headers": {}, "body": ""}]',
    b'[{"headers": {"webhook-id": "1"}}]',
    b'[{"headers": {"webhook-id": "1"}, "body": 7}]',
    b'[{"headers": {"webhook-id": "1"}, "body": "fine"}, {"body": "of whom?"}]',
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_example_refuses_what_is_not_signed_or_is_no_batch(program, run, folder):
    key, stranger = os.urandom(32), os.urandom(32)
    url = await run(EXAMPLES / program, secret_file(folder, key), folder)
    good = batches.body([batches.item(name, {"webhook-id": name}, b"x", b"") for name in ("1", "../2")])

    async def answer(
        body: bytes, *keys: bytes, sent: bytes | None = None, age: int = 0, **other: str
    ) -> tuple[int, object]:
        headers = {"webhook-id": "all", "webhook-timestamp": str(int(time()) - age)}
        signatures = " ".join(signature(each, headers, body) for each in keys)
        headers |= {"webhook-signature": signatures} | {name.replace("_", "-"): value for name, value in other.items()}
        async with session.post(url, data=body if sent is None else sent, headers=headers) as said:
            return said.status, await said.json()

    async with aiohttp.ClientSession() as session:
        unsigned = [
            await answer(good),
            await answer(good, stranger),
            await answer(good, key, sent=good.replace(b'"x"', b'"y"')),
            await answer(good, key, age=400),
            await answer(good, key, age=-400),
            await answer(good, key, webhook_id="another"),
            await answer(good, key, webhook_timestamp="soon"),
            await answer(good, webhook_signature="v1,\u00e9 v1, v1a,AAAA"),
        ]
        assert [status for status, _ in unsigned] == [401] * 8
        assert {body: (await answer(body, key))[0] for body in NO_BATCHES} == dict.fromkeys(NO_BATCHES, 400)
        assert list(folder.iterdir()) == []
        assert await answer(good, stranger, key) == (200, {"batchItemFailures": []})
    assert sorted(file.name for file in folder.iterdir()) == ["1", "2"]

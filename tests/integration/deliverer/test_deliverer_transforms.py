"""Transforms at work: what is sent is what expressions make, signed and recorded as such; the rest is untouched."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta

from kapsel_store import erasures
from kapsel_store.rows import Backoff, Policy, Transform
from kapsel_store.states import State

BODY = b'{"order": {"id": 7, "items": [{"sku": "A-1", "n": 2}, {"sku": "B-2", "n": 1}]}, "secret": "x"}'
PLAIN = b"a=1&b=2\xff\x00"
MADE = b'{"event":"%s","order":7,"skus":["A-1","B-2"]}'
TRANSFORM = Transform(
    body='{"order": event.body.order.id, "skus": event.body.order.items.map(i, i.sku), "event": event.id}',
    headers=(("X-Order", 'has(event.body) ? string(event.body.order.id) : "none"'),),
)
UNTIL_MENDED = Policy(
    backoff=Backoff(type="Schedule", schedule=(timedelta(milliseconds=50),), jitter=0), max_attempts=10_000
)


async def test_what_a_transform_makes_is_sent_signed_and_recorded(destination, shop, start) -> None:
    await shop.send_to(destination.url, transform=TRANSFORM)
    await start()
    (delivery,) = await shop.put(body=BODY, content_type="application/vnd.shop+json")
    row = await shop.ends(State.DELIVERED, delivery)

    (got,) = destination.received
    assert got.body == MADE % str(row.event_id).encode()
    assert (got.headers["content-type"], got.headers["x-order"]) == ("application/json", "7")
    signed = b".".join((got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.body))
    expected = base64.b64encode(hmac.digest(shop.keys[0].secret, signed, "sha256")).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"

    (attempt,) = [each.attempt for each in await shop.attempts(delivery)]
    assert attempt.payload_hash == hashlib.sha256(BODY).digest()
    assert attempt.sent_hash == hashlib.sha256(got.body).digest()


async def test_a_body_that_is_no_json_passes_untouched(destination, shop, start) -> None:
    await shop.send_to(destination.url, transform=TRANSFORM)
    await start()
    (delivery,) = await shop.put(body=PLAIN, content_type="application/octet-stream")
    await shop.ends(State.DELIVERED, delivery)
    (got,) = destination.received
    assert (got.body, got.headers["content-type"]) == (PLAIN, "application/octet-stream")
    assert got.headers["x-order"] == "none"
    assert (await shop.attempts(delivery))[0].attempt.sent_hash is None


async def test_a_text_is_sent_as_it_is_under_a_content_type_of_its_own(destination, shop, start) -> None:
    text = Transform(body='"order " + string(event.body.order.id) + " é"', content_type="text/plain; charset=utf-8")
    await shop.send_to(destination.url, transform=text)
    await start()
    (delivery,) = await shop.put(body=BODY)
    await shop.ends(State.DELIVERED, delivery)
    (got,) = destination.received
    assert (got.body.decode(), got.headers["content-type"]) == ("order 7 é", "text/plain; charset=utf-8")


async def test_a_transform_that_fails_is_a_recorded_try_and_a_mended_one_delivers(
    destination, shop, start, kit
) -> None:
    row = await shop.send_to(destination.url, transform=Transform(body="event.body.gone"), policy=UNTIL_MENDED)
    deliverer = await start()
    (delivery,) = await shop.put(body=BODY)

    async def tried() -> bool:
        return bool(await shop.attempts(delivery))

    await kit.eventually(tried, "a recorded try")
    first = (await shop.attempts(delivery))[0].attempt
    assert (first.outcome, first.reason, first.signature_digest) == ("unsent", "transform_error", None)
    assert first.detail == "body: the event has no gone (character 12)"
    assert await deliverer.metric("expression_errors_total", place="transform", reason="missing") >= 1
    await shop.change(row, transform=Transform(body="event.body.order"))
    await shop.ends(State.DELIVERED, delivery)
    assert json.loads(destination.received[0].body)["id"] == 7


async def test_what_cannot_be_sent_is_an_error_and_stops_no_other_destination(destination, shop, start, kit) -> None:
    later = Policy(backoff=Backoff(type="Schedule", schedule=(timedelta(hours=1),)))
    for made in (
        Transform(body="[event.receivedAt]"),
        Transform(body="event.body", headers=(("X-A", '"a\\r\\nx-b: c"'),)),
        Transform(body="event.body", headers=(("X-A", "event.body.order.id"),)),
        None,
    ):
        await shop.send_to(destination.url, transform=made, policy=later)
    await start()
    *failing, fine = await shop.put(body=BODY)
    await shop.ends(State.DELIVERED, fine)
    said = []
    for delivery in failing:

        async def tried(each=delivery) -> bool:
            return [listed.attempt.reason for listed in await shop.attempts(each)] == ["transform_error"]

        await kit.eventually(tried, "a recorded try")
        said += [listed.attempt.detail for listed in await shop.attempts(delivery)]
    assert len(destination.received) == 1
    assert said == [
        "body: it gives a value that JSON does not have, such as a timestamp",
        "header x-a: it gives what is no value of a header",
        "header x-a: it gives a int, where a string belongs (character 18)",
    ]


async def test_what_an_event_says_is_in_no_attempt(destination, shop, start, kit) -> None:
    later = Policy(backoff=Backoff(type="Schedule", schedule=(timedelta(hours=1),)))
    await shop.send_to(destination.url, transform=Transform(body="event.body.order[event.body.secret]"), policy=later)
    await start()
    (delivery,) = await shop.put(body=BODY.replace(b'"x"', b'"hunter2"'))

    async def tried() -> bool:
        return bool(await shop.attempts(delivery))

    await kit.eventually(tried, "a recorded try")
    (attempt,) = [each.attempt for each in await shop.attempts(delivery)]
    assert attempt.detail == "body: a map has not the key that it is asked for (character 17)"


async def test_what_was_sent_is_forgotten_with_its_event(destination, shop, start) -> None:
    await shop.send_to(destination.url, transform=TRANSFORM)
    await start()
    (delivery,) = await shop.put(body=BODY)
    row = await shop.ends(State.DELIVERED, delivery)
    assert (await shop.attempts(delivery))[0].attempt.sent_hash is not None
    async with shop.pool.acquire() as connection:
        await erasures.erase(connection, row.event_id)
    attempt = (await shop.attempts(delivery))[0].attempt
    assert (attempt.payload_hash, attempt.sent_hash) == (None, None)

"""Handshakes over HTTP: answered, counted, bounded, and never an event."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from kapsel_receiver.endpoints import HANDSHAKES
from kapsel_store.rows import RateLimit, Verification

Make = Callable[..., Any]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


async def test_a_get_handshake_is_answered_and_makes_no_event(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    meta = Verification(scheme="meta", key_name="in", token_key_name="token")
    token = key(b"meatyhamhock", id=UUID(int=6), name="token")
    query = "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    async with receive(endpoint(verification=meta), keys=(key(), token)) as receiver:
        good = await receiver.exchange(post(method="GET", path=f"/ingest/shop/orders{query}meatyhamhock"))
        bad = await receiver.exchange(post(method="GET", path=f"/ingest/shop/orders{query}guessed"))
        plain = await receiver.exchange(post(method="GET"))
        assert (good.status, good.body) == (200, b"1158201444")
        assert good.headers["content-type"].startswith("text/plain")
        assert good.headers["x-content-type-options"] == "nosniff"
        assert (bad.status, bad.code) == (401, "credentials_mismatch")
        assert plain.json == {"status": "ready", "accepts": "POST"}
        assert (receiver.count("handshake"), receiver.count("credentials_mismatch")) == (1, 1)
        assert await receiver.events() == []


async def test_a_signed_handshake_is_answered_and_a_webhook_of_the_same_scheme_stored(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    def slack(body: bytes) -> dict[str, str]:
        stamp = str(int(NOW.timestamp()))
        mac = hmac.digest(b"s", f"v0:{stamp}:".encode() + body, "sha256").hex()
        return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={mac}"}

    challenge = b'{"type": "url_verification", "challenge": "3eZbrw1a"}'
    row = endpoint(verification=Verification(scheme="slack", key_name="in"))
    async with receive(row, keys=(key(b"s"),), now=lambda: NOW) as receiver:
        assert (await receiver.exchange(post(challenge))).code == "signature_missing"
        answer = await receiver.exchange(post(challenge, slack(challenge)))
        assert (answer.status, answer.body) == (200, b"3eZbrw1a")
        assert await receiver.events() == []
        webhook = b'{"type": "event_callback"}'
        assert (await receiver.exchange(post(webhook, slack(webhook)))).status == 200
        assert len(await receiver.events()) == 1


async def test_microsoft_graph_hears_its_token_decoded(receive: Any, post: Make, endpoint: Make, key: Make) -> None:
    row = endpoint(verification=Verification(scheme="microsoftGraph", key_name="in"))
    async with receive(row, keys=(key(b"state"),)) as receiver:
        asked = post(b"", path="/ingest/shop/orders?validationToken=Validation%3a+Testing+a%20b")
        answer = await receiver.exchange(asked)
        assert (answer.status, answer.body) == (200, b"Validation: Testing a b")
        assert answer.headers["content-type"].startswith("text/plain")
        body = json.dumps({"value": [{"clientState": "state"}]}).encode()
        assert (await receiver.exchange(post(body))).status == 202
        assert len(await receiver.events()) == 1


async def test_handshakes_of_strangers_are_bounded_and_take_nothing_of_the_endpoint_s_rate(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    x = Verification(scheme="x", key_name="in")
    limited = endpoint(verification=x, rate_limit=RateLimit(requests_per_second=1, burst=1))
    async with receive(limited, keys=(key(b"s"),), monotonic=lambda: 5.0) as receiver:
        asked = post(method="GET", path="/ingest/shop/orders?crc_token=abc")
        answers = [await receiver.exchange(asked) for _ in range(HANDSHAKES.burst + 1)]
        assert [answer.status for answer in answers] == [200] * HANDSHAKES.burst + [429]
        assert answers[-1].code == "rate_limited"
        assert int(answers[-1].headers["retry-after"]) >= 1
        body = b'{"for_user_id": "1"}'
        mac = base64.b64encode(hmac.digest(b"s", body, "sha256")).decode()
        headers = {"x-twitter-webhooks-signature": f"sha256={mac}"}
        assert (await receiver.exchange(post(body, headers))).status == 200


async def test_a_suspended_endpoint_still_answers_who_it_is(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    row = endpoint(verification=Verification(scheme="dropbox", key_name="in"), suspend=True)
    async with receive(row, keys=(key(b"s"),)) as receiver:
        answer = await receiver.exchange(post(method="GET", path="/ingest/shop/orders?challenge=abc"))
        assert (answer.status, answer.body) == (200, b"abc")
        assert (await receiver.exchange(post())).code == "endpoint_suspended"


async def test_twilio_gets_an_empty_answer_with_the_event_s_id_beside_it(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    row = endpoint(verification=Verification(scheme="twilio", key_name="in", public_url="https://a.example/calls"))
    mac = base64.b64encode(hmac.digest(b"s", b"https://a.example/calls?x=1Digits1", "sha1")).decode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": mac}
    async with receive(row, keys=(key(b"s"),)) as receiver:
        answer = await receiver.exchange(post(b"Digits=1", headers, path="/ingest/shop/orders?x=1"))
        (event,) = await receiver.events()
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["x-event-id"] == str(event["id"])

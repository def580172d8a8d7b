"""Handshakes over HTTP: answered, counted, bounded, and never an event."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from nacl.signing import SigningKey

from kapsel_cli import providers
from kapsel_cli.providers import Outgoing
from kapsel_receiver.endpoints import HANDSHAKES
from kapsel_receiver.handshakes import LARGEST
from kapsel_receiver.intake import Bounds
from kapsel_store.rows import RateLimit, Scheme, Verification

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


PING = b'{"type": 1}'
URL_VALIDATION = b'{"event": "endpoint.url_validation", "payload": {"plainToken": "abc"}}'
URL_VERIFICATION = b'{"type": "url_verification", "challenge": "abc"}'
# For each scheme what its provider asks (query, body), what it hears, and a webhook.
HANDSHAKES_OF: dict[Scheme, tuple[str, bytes | None, bytes, bytes]] = {
    "dropbox": ("?challenge=abc", None, b"abc", b"{}"),
    "microsoftGraph": ("?validationToken=abc", b"", b"abc", b'{"value": [{"clientState": "s"}]}'),
    "slack": ("", URL_VERIFICATION, b"abc", b'{"type": "event_callback"}'),
    "zoom": ("", URL_VALIDATION, hmac.digest(b"s", b"abc", "sha256").hex().encode(), b'{"event": "meeting.started"}'),
    "discord": ("", PING, b'{"type": 1}', b'{"type": 1, "event": {"type": "ENTITLEMENT_CREATE"}}'),
}
SEED = b"whsk_" + base64.b64encode(bytes(32))


@pytest.mark.parametrize("scheme", sorted(HANDSHAKES_OF))
@pytest.mark.parametrize(
    ("changes", "bounds", "code"),
    [
        ({"suspend": True}, Bounds(), "endpoint_suspended"),
        ({}, Bounds(queue_events=0), "overloaded"),
        ({"suspend": True, "rate_limit": RateLimit(requests_per_second=1, burst=1)}, Bounds(), "endpoint_suspended"),
    ],
    ids=["suspended", "overloaded", "suspended with a rate"],
)
async def test_an_endpoint_that_takes_no_webhooks_still_answers_who_it_is(
    receive: Any,
    post: Make,
    endpoint: Make,
    key: Make,
    scheme: Scheme,
    changes: dict[str, Any],
    bounds: Bounds,
    code: str,
) -> None:
    public = SigningKey(bytes(32)).verify_key.encode().hex()
    verification = Verification(scheme=scheme, key_name="in", public_keys=(public,))
    query, asked, heard, webhook = HANDSHAKES_OF[scheme]

    def signed(body: bytes, query: str = "") -> bytes:
        secret = SEED if scheme == "discord" else b"s"
        outgoing = Outgoing(body=body, secret=secret, id="1", type="test", now=NOW)
        return bytes(post(body, providers.headers(verification, outgoing), path=f"/ingest/shop/orders{query}"))

    row = endpoint(verification=verification, **changes)
    async with receive(row, keys=(key(b"s"),), bounds=bounds, now=lambda: NOW) as receiver:
        got = post(method="GET", path=f"/ingest/shop/orders{query}") if asked is None else signed(asked, query)
        answer = await receiver.exchange(got)
        assert (answer.status, heard in answer.body) == (200, True)
        assert (await receiver.exchange(signed(webhook))).code == code
        assert (receiver.count("handshake"), receiver.count(code)) == (1, 1)
        assert await receiver.events() == []


async def test_a_handshake_is_answered_when_the_rate_of_the_endpoint_is_used_up(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    limit = RateLimit(requests_per_second=0.01, burst=1)
    graph = endpoint(verification=Verification(scheme="microsoftGraph", key_name="in"), rate_limit=limit)
    async with receive(graph, keys=(key(b"s"),)) as receiver:
        webhook = post(HANDSHAKES_OF["microsoftGraph"][3])
        assert [(await receiver.exchange(webhook)).status for _ in range(2)] == [202, 429]
        answer = await receiver.exchange(post(b"", path="/ingest/shop/orders?validationToken=abc"))
        assert (answer.status, answer.body) == (200, b"abc")


async def test_what_is_too_long_for_a_handshake_is_refused_by_its_head(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    row = endpoint(verification=Verification(scheme="slack", key_name="in"), suspend=True)
    async with receive(row, keys=(key(b"s"),)) as receiver:
        assert (await receiver.exchange(post(b"x" * LARGEST))).code == "signature_missing"
        wire = await receiver.connect()
        wire.send(post(b"x" * (LARGEST + 1))[: -LARGEST - 1])
        assert (await wire.answer()).code == "endpoint_suspended"


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

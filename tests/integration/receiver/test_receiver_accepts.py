"""What a good webhook meets: a durable event with its deliveries, one answer for it and its duplicates."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest
import yaml
from nacl.signing import SigningKey

from kapsel_cli import providers
from kapsel_cli.providers import Outgoing
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration, Idempotency, RateLimit, Scheme, Verification

Make = Callable[..., Any]
PROVIDERS = (Path(__file__).parents[3] / "docs" / "providers.md").read_text(encoding="utf-8")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GITHUB = Verification(scheme="github", key_name="in")


async def test_a_202_means_an_event_with_one_delivery_per_destination_is_stored(
    receive: Any, post: Make, signed: Make, endpoint: Make, key: Make
) -> None:
    body = b'{"action": "opened"}'
    headers = signed(body) | {
        "Content-Type": "application/json; charset=utf-8",
        "X-Correlation-Id": "order-7",
        "X-Twice": "a",
        "x-twice": "b",
    }
    async with receive(endpoint(verification=GITHUB), keys=(key(),)) as receiver:
        answer = await receiver.exchange(post(body, headers))
        assert answer.status == 202
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-correlation-id"] == "order-7"
        (event,) = await receiver.events()
        assert answer.json == {"id": str(event["id"])}
        assert event["body"] == body
        assert event["body_hash"] == hashlib.sha256(body).digest()
        assert event["content_type"] == "application/json; charset=utf-8"
        assert event["correlation_id"] == "order-7"
        assert len(event["salt"]) == 32
        stored = [tuple(pair) for pair in json.loads(event["headers"])]
        assert ("X-Twice", "a") in stored
        assert ("x-twice", "b") in stored
        assert abs(event["received_at"] - datetime.now(UTC)) < timedelta(minutes=1)
        (delivery,) = await receiver.rows("SELECT * FROM deliveries")
        assert (delivery["event_id"], delivery["state"]) == (event["id"], "pending")
        assert delivery["expires_at"] - delivery["created_at"] == timedelta(hours=72)
        assert receiver.count("accepted") == 1
        assert receiver.registry.get_sample_value("webhook_ingestion_batch_size_count") == 1
        assert receiver.registry.get_sample_value("webhook_ingestion_duration_seconds_count") == 1


async def test_no_answer_tells_what_the_server_is_made_of(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        for request in (
            post(b"{}"),
            post(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"),
            post(b"{}").replace(b"/ingest/shop/orders", b"/ingest/no/such"),
            b"GET /ingest/shop/orders HTTP/1.1\r\nHost: k\r\n\r\n",
            b"nonsense\r\n\r\n",
        ):
            assert (await receiver.exchange(request)).headers.get("server", "kapsel") == "kapsel"


async def test_both_ingest_urls_reach_the_endpoint_with_and_without_a_query(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        for path in (
            "/ingest/shop/orders",
            "/ingest/shop/orders?source=a",
            "/ingest/11111111-1111-4111-8111-111111111111",
            "http://kapsel/ingest/shop/orders",
            "/ingest/shop/%6Frders",
        ):
            assert (await receiver.exchange(post(path=path))).status == 202
        assert len(await receiver.events()) == 5


async def test_a_duplicate_hears_what_the_first_one_heard_and_is_not_stored(
    receive: Any, post: Make, endpoint: Make
) -> None:
    row = endpoint(idempotency=Idempotency(source="Header", header="X-Event"))
    async with receive(row) as receiver:
        first = await receiver.exchange(post(b"1", {"X-Event": "7"}))
        again = await receiver.exchange(post(b"2", {"x-event": "7"}))
        other = await receiver.exchange(post(b"1", {"X-Event": "8"}))
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert other.body != first.body
        assert [event["body"] for event in await receiver.events()] == [b"1", b"1"]
        assert (receiver.count("accepted"), receiver.count("duplicate")) == (2, 1)


SECRETS = {
    "standardWebhooks": b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "discord": b"whsk_" + base64.b64encode(bytes(32)),
}
BODIES = {
    "linear": b'{"webhookTimestamp": %d}' % (NOW.timestamp() * 1000),
    "microsoftGraph": b'{"value": [{"clientState": "user:password"}]}',
    "twilio": b"Digits=1",
}


async def test_a_provider_hears_the_success_that_it_asks_for_and_of_a_duplicate_the_same(
    receive: Any, post: Make, endpoint: Make, key: Make
) -> None:
    schemes = [scheme for scheme in get_args(Scheme) if scheme != "sns"]  # Amazon alone can sign for that one
    rows = {
        scheme: endpoint(
            id=uuid4(),
            name=scheme.lower(),
            verification=Verification(
                scheme=scheme,
                key_name=scheme,
                header="X-Signature",
                public_keys=(SigningKey(bytes(32)).verify_key.encode().hex(),),
            ),
            idempotency=Idempotency(source="Content"),
        )
        for scheme in schemes
    }
    keys = tuple(
        key(
            base64.b64decode(SECRETS[scheme][6:]) if scheme == "standardWebhooks" else b"user:password",
            id=uuid4(),
            name=scheme,
        )
        for scheme in schemes
    )
    heard: dict[str, tuple[int, bool]] = {}
    async with receive(*rows.values(), keys=keys, destinations=(), now=lambda: NOW) as receiver:
        for scheme, row in rows.items():
            path = f"/ingest/shop/{row.name}"
            webhook = Outgoing(
                body=BODIES.get(scheme, b'{"a": 1}'),
                secret=SECRETS.get(scheme, b"user:password"),
                id="7",
                type="test",
                now=NOW,
                url=f"https://kapsel{path}",
            )
            request = post(webhook.body, providers.headers(row.verification, webhook), path=path)
            first, again = await receiver.exchange(request), await receiver.exchange(request)
            assert (first.status, first.body) == (again.status, again.body)
            assert "idempotent-replayed" in again.headers
            assert first.headers.get("x-event-id") or first.json["id"]
            heard[scheme] = (first.status, bool(first.body))
    plain = ("github", "stripe", "shopify", "microsoftGraph", "square", "hubspot", "pagerduty", "standardWebhooks")
    assert heard == {
        **dict.fromkeys((*plain, "hmac", "basic", "bearer", "none"), (202, True)),
        **dict.fromkeys(("docusign", "dropbox", "gitlab", "linear", "meta", "paddle", "x", "zoom"), (200, True)),
        "slack": (200, False),
        **dict.fromkeys(("discord", "okta", "twilio"), (204, False)),
    }


async def test_duplicates_that_arrive_at_once_are_stored_once(receive: Any, post: Make, endpoint: Make) -> None:
    row = endpoint(idempotency=Idempotency(source="Content"))
    async with receive(row) as receiver:
        answers = await asyncio.gather(*(receiver.exchange(post(b"same")) for _ in range(40)))
        assert {(answer.status, answer.body) for answer in answers} == {(202, answers[0].body)}
        assert len(await receiver.events()) == 1
        assert (receiver.count("accepted"), receiver.count("duplicate")) == (1, 39)


def documented(section: str, secret: str) -> Configuration:
    """Return what the manifest of a section of docs/providers.md comes to."""
    text = PROVIDERS.partition(f"\n## {section}\n")[2].partition("```yaml\n")[2].partition("```")[0]
    metadata = {"name": re.findall(r"secretRef: \{name: ([a-z]+)", text)[0], "namespace": "shop"}
    held = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"secret": secret}}
    resources = [parse(document) for document in (*yaml.safe_load_all(text), held)]
    planned = plan(resources, existing=Configuration(), now=datetime.now(UTC), entropy=os.urandom)
    assert planned.problems == ()
    return planned.configuration


DROPBOX = b'{"list_folder": {"accounts": ["dbid:AAH4f99T0taONIb"]}, "delta": {"users": [12345678]}}'
ONEDRIVE = (
    b'{"value": [{"subscriptionId": "0fc0d6db", "clientState": "s", "expirationDateTime": "2026-04-01T00:00:00Z",'
    b' "resource": "me/drive/root", "changeType": "updated"}]}'
)


@pytest.mark.parametrize(
    ("section", "path", "body", "headers"),
    [
        ("Dropbox", "dropbox", DROPBOX, {"X-Dropbox-Signature": hmac.digest(b"s", DROPBOX, "sha256").hex()}),
        ("Microsoft Graph", "graph", ONEDRIVE, {}),
    ],
    ids=["dropbox", "microsoftGraph"],
)
async def test_two_changes_that_a_provider_tells_of_in_equal_bodies_are_two_events_with_a_delivery_each(
    receive: Any, post: Make, section: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    said = documented(section, "s")
    async with receive(*said.endpoints, keys=said.keys, destinations=said.destinations) as receiver:
        answers = [await receiver.exchange(post(body, headers, path=f"/ingest/shop/{path}")) for _ in range(2)]
        assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, False]
        assert len({row["event_id"] for row in await receiver.rows("SELECT event_id FROM deliveries")}) == 2


async def test_a_duplicate_after_the_window_is_a_new_event(receive: Any, post: Make, endpoint: Make) -> None:
    row = endpoint(idempotency=Idempotency(source="Content", window=timedelta(0)))
    async with receive(row) as receiver:
        assert [(await receiver.exchange(post(b"same"))).status for _ in range(2)] == [202, 202]
        assert len(await receiver.events()) == 2


async def test_a_webhook_without_the_id_its_endpoint_asks_for_is_stored_and_counted(
    receive: Any, post: Make, endpoint: Make
) -> None:
    row = endpoint(idempotency=Idempotency(source="Header", header="X-Event"))
    async with receive(row) as receiver:
        assert [(await receiver.exchange(post(b"1"))).status for _ in range(2)] == [202, 202]
        assert len(await receiver.events()) == 2
        assert receiver.count("accepted_without_key") == 2


async def test_any_content_type_and_a_compressed_body_are_stored_byte_for_byte(receive: Any, post: Make) -> None:
    packed = gzip.compress(b'{"a": 1}' * 100)
    async with receive() as receiver:
        for body, headers in (
            (packed, {"Content-Encoding": "gzip", "Content-Type": "application/json"}),
            (b"a=1&b=2", {"Content-Type": "application/x-www-form-urlencoded"}),
            (bytes(range(256)), {"Content-Type": "no such type"}),
            (b"\xff\x00", {}),
            (b"", {"Content-Type": "\udcff\udcfe"}),
        ):
            assert (await receiver.exchange(post(body, headers))).status == 202
        events = await receiver.events()
        assert [event["body"] for event in events] == [packed, b"a=1&b=2", bytes(range(256)), b"\xff\x00", b""]
        assert ["Content-Encoding", "gzip"] in json.loads(events[0]["headers"])
        assert events[2]["content_type"] == "no such type"
        assert events[3]["content_type"] == "application/octet-stream"
        assert events[4]["content_type"] == "ÿþ"


async def test_a_content_type_that_is_said_twice_counts_once_unless_the_two_differ(receive: Any) -> None:
    request = "POST /ingest/shop/orders HTTP/1.1\r\nHost: k\r\nContent-Type: a/b\r\n{}Content-Length: 2\r\n\r\n{{}}"
    async with receive() as receiver:
        repeated = request.format("X-A: 1\r\ncontent-type:  a/b\r\nCONTENT-TYPE: a/b\r\n").encode()
        assert (await receiver.exchange(repeated)).status == 202
        (event,) = await receiver.events()
        assert json.loads(event["headers"])[1:3] == [["Content-Type", "a/b"], ["X-A", "1"]]
        assert event["content_type"] == "a/b"
        differing = request.format("Content-Type: c/d\r\n").encode()
        assert (await receiver.exchange(differing)).status == 400


async def test_a_body_that_looks_like_a_head_is_left_as_it_is(receive: Any) -> None:
    body = b"POST / HTTP/1.1\r\ncontent-type: a/b\r\ncontent-type: a/b\r\n\r\n"
    head = b"POST %s HTTP/1.1\r\nHost: k\r\nContent-Length: %d\r\n\r\n"
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(head % (b"/ingest/no/such", len(body)))
        assert (await wire.answer()).status == 404
        for part in (body, head % (b"/ingest/shop/orders", len(body)), body):
            wire.send(part)
            await wire.writer.drain()
        assert (await wire.answer()).status == 202
        assert [event["body"] for event in await receiver.events()] == [body]


async def test_a_chunked_body_is_stored_as_it_was_meant(receive: Any) -> None:
    head = b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with receive() as receiver:
        wire = await receiver.connect()
        for part in (head, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n", b"0\r\n\r\n"):
            wire.send(part)
            await wire.writer.drain()
            await asyncio.sleep(0)
        assert (await wire.answer()).status == 202
        assert [event["body"] for event in await receiver.events()] == [b"abcde"]


async def test_a_sender_that_expects_100_continue_gets_it_before_it_sends_the_body(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        head, body = post(b"x" * 2000, {"Expect": "100-continue"}).split(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")
        assert (await wire.answer(head=True)).status == 100
        wire.send(body)
        assert (await wire.answer()).status == 202
        wire.send(head.replace(b"100-continue", b"200-ok") + b"\r\n\r\n")
        refused = await wire.answer()
        assert (refused.status, refused.code) == (417, "expectation_failed")
        assert receiver.count("expectation_failed") == 1


async def test_pipelined_requests_are_answered_in_order(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(b"".join(post(b"%d" % number) for number in range(60)))
        ids = [(await wire.answer()).json["id"] for _ in range(60)]
        bodies = {str(event["id"]): event["body"] for event in await receiver.events()}
        assert [bodies[found] for found in ids] == [b"%d" % number for number in range(60)]


async def test_credentials_are_never_stored(receive: Any, post: Make, endpoint: Make, key: Make) -> None:
    row = endpoint(verification=Verification(scheme="bearer", key_name="in"))
    headers = {"authorization": "Bearer token", "Cookie": "a=b", "X-Api-Key": "k", "X-Gitlab-Token": "t", "X-Safe": "s"}
    async with receive(row, keys=(key(b"token"),)) as receiver:
        assert (await receiver.exchange(post(b"", headers))).status == 202
        (event,) = await receiver.events()
        stored = {name.lower() for name, _ in json.loads(event["headers"])}
        assert stored == {"host", "content-length", "x-safe"}


async def test_a_correlation_id_is_taken_over_if_it_is_fit_and_made_if_not(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        cases = [({"X-Request-Id": "abc"}, "abc"), ({"X-Correlation-Id": "c", "X-Request-Id": "r"}, "c")]
        for headers, expected in cases:
            assert (await receiver.exchange(post(b"", headers))).headers["x-correlation-id"] == expected
        for unfit in ("a b", "x" * 129, "ä", '"', ""):
            answer = await receiver.exchange(post(b"", {"X-Correlation-Id": unfit}))
            made = answer.headers["x-correlation-id"]
            assert len(made) == 32
            assert made.isalnum()
        assert [event["correlation_id"] for event in await receiver.events()][:2] == ["abc", "c"]


async def test_keys_rotate_without_a_gap(receive: Any, post: Make, signed: Make, endpoint: Make, key: Make) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    now = [start]
    old = key(b"old", not_after=start + timedelta(days=2))
    new = key(b"new", id=UUID(int=6), version=2, not_before=start + timedelta(days=1))
    row = endpoint(verification=GITHUB)
    async with receive(row, keys=(old, new), now=lambda: now[0]) as receiver:
        for day, expected in ((0, [202, 401]), (1, [202, 202]), (2, [401, 202]), (0, [202, 401])):
            now[0] = start + timedelta(days=day)
            answers = [await receiver.exchange(post(b"x", signed(b"x", secret))) for secret in (b"old", b"new")]
            assert [answer.status for answer in answers] == expected


async def test_a_rate_limit_lets_the_burst_pass_and_tells_when_to_come_again(
    receive: Any, post: Make, signed: Make, endpoint: Make, key: Make
) -> None:
    clock = [100.0]
    row = endpoint(verification=GITHUB, rate_limit=RateLimit(requests_per_second=0.001, burst=2))
    async with receive(row, keys=(key(),), monotonic=lambda: clock[0]) as receiver:
        for _ in range(5):  # forgers cannot use up what the provider may send
            assert (await receiver.exchange(post(b"x"))).code == "signature_missing"
        answers = [await receiver.exchange(post(b"x", signed(b"x"))) for _ in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 429]
        assert answers[2].code == "rate_limited"
        told = int(answers[2].headers["retry-after"])
        assert 1 <= told <= 1000
        # The bucket fills by the clock of the database, and the receiver asks no sooner than it told.
        assert (await receiver.exchange(post(b"x", signed(b"x")))).headers["retry-after"] == str(told)
        async with receiver.pool.acquire() as connection:
            await connection.execute("UPDATE buckets SET filled_at = filled_at - interval '1000 seconds'")
        clock[0] += told
        assert (await receiver.exchange(post(b"x", signed(b"x")))).status == 202
        assert receiver.count("rate_limited") == 2
        assert len(await receiver.events()) == 3

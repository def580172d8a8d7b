"""What comes of a delivery for everything that a destination may do: a value, an attempt, a metric, nothing lost."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta

import nacl.signing
import pytest
from aiohttp import web

from kapsel_store import attempts, tlog
from kapsel_store.rows import Policy, RelayRow
from kapsel_store.states import State

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def verifies_v1(signature: str, secret: bytes, received) -> bool:
    message = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    return signature == "v1," + base64.b64encode(hmac.digest(secret, message, "sha256")).decode()


async def test_two_failures_and_a_success_are_three_attempts_and_one_delivered(destination, shop, start) -> None:
    destination.statuses = [500, 503]
    row = await shop.send_to(destination.url)
    deliverer = await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.DELIVERED, delivery_id)
    assert delivery.attempts == 3
    tries = [listed.attempt for listed in await shop.attempts(delivery_id)]
    assert [(each.number, each.outcome, each.reason, each.response_status) for each in tries] == [
        (1, "refused", "status_500", 500),
        (2, "refused", "status_503", 503),
        (3, "delivered", "status_200", 200),
    ]
    label = f"shop/orders/{row.name}"
    name = "webhook_delivery_attempts_total"
    assert await deliverer.metric(name, endpoint="shop/orders", destination=label, outcome="refused") == 2
    assert await deliverer.metric(name, destination=label, outcome="delivered") == 1
    assert await deliverer.metric("webhook_delivery_failures_total", fault="destination", reason="status_500") == 1
    assert await deliverer.metric("webhook_delivery_duration_seconds_count", destination=label) == 3
    assert await deliverer.metric("webhook_event_age_at_delivery_seconds_count") == 1


async def test_what_goes_out_is_signed_by_every_live_key_and_says_what_it_is(destination, shop, start, kit) -> None:
    now = datetime.now(UTC)
    seed = nacl.signing.SigningKey.generate()
    old = kit.hmac_key("generated/out", 1, not_after=now + timedelta(hours=1))
    new = kit.hmac_key("generated/out", 2)
    ended = kit.hmac_key("generated/out", 3, not_after=now - timedelta(seconds=1))
    early = kit.hmac_key("generated/out", 4, not_before=now + timedelta(hours=1))
    edwards = kit.hmac_key("generated/out", 5, algorithm="Ed25519", secret=bytes(seed), public=bytes(seed.verify_key))
    shop.keys += [old, new, ended, early, edwards]
    headers = (("X-Team", "billing"), ("Webhook-Id", "forged"), ("content-type", "text/forged"))
    await shop.send_to(destination.url, key_name="generated/out", headers=headers)
    await start()
    body = b'{"total": 12}'
    [delivery_id] = await shop.put(body=body, correlation_id="abc-123", content_type="application/json; charset=utf-8")
    [got] = await destination.got(1)
    await shop.ends(State.DELIVERED, delivery_id)
    [listed] = await shop.attempts(delivery_id)
    assert got.body == body
    assert got.headers["webhook-id"] == str(listed.attempt.event_id)
    assert got.headers["x-team"] == "billing"
    assert got.headers["content-type"] == "application/json; charset=utf-8"
    assert got.headers["x-correlation-id"] == "abc-123"
    assert got.headers["kapsel-attempt"] == "1"
    assert got.headers["user-agent"].startswith("kapsel/")
    assert abs(int(got.headers["webhook-timestamp"]) - now.timestamp()) < 600
    first, second, third = got.headers["webhook-signature"].split(" ")
    message = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + body
    seed.verify_key.verify(message, base64.b64decode(first.removeprefix("v1a,"), validate=True))
    assert verifies_v1(second, new.secret, got)
    assert verifies_v1(third, old.secret, got)
    lines = "".join(
        f"{name}: {got.headers[name]}\n" for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    assert listed.attempt.signature_digest == hashlib.sha256(lines.encode()).digest()
    assert listed.attempt.payload_hash == hashlib.sha256(body).digest()
    assert listed.attempt.payload_commitment is not None


async def test_the_answer_is_kept_with_a_digest_of_the_whole(destination, shop, start) -> None:
    text = "x" * 50_000

    async def long(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=text, headers={"X-Answer": "ü"})

    destination.answer = long
    await shop.send_to(destination.url)
    await start()
    [delivery_id] = await shop.put()
    await shop.ends(State.DELIVERED, delivery_id)
    [listed] = await shop.attempts(delivery_id)
    async with shop.pool.acquire() as connection:
        whole = await attempts.get(connection, listed.attempt.id)
    assert whole.attempt.response_body == text[: 16 * 1024].encode()
    assert whole.attempt.response_size == len(text)
    assert whole.attempt.response_digest == hashlib.sha256(text.encode()).digest()
    assert ["X-Answer", "ü".encode().decode("latin-1")] in json.loads(whole.attempt.response_headers)


async def test_deliveries_carry_the_newest_checkpoint(destination, shop, start, kit) -> None:
    note = "example.com/log\n12\nAAAA\n\n\u2014 example.com/log abcd\n"
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put())
    assert "kapsel-checkpoint" not in destination.received[0].headers
    async with shop.pool.acquire() as connection:
        log = await tlog.open_log(connection, "example.com/log")
        head = tlog.HeadRow(
            log_id=log.id,
            timestamp_ms=1,
            tree_size=12,
            root=bytes(32),
            checkpoint=note,
            sth_signature=bytes(64),
            public_key=bytes(32),
        )
        await tlog.publish(connection, head)

    async def is_carried() -> bool:
        await shop.ends(State.DELIVERED, *await shop.put())
        value = destination.received[-1].headers.get("kapsel-checkpoint", "")
        return base64.b64decode(value).decode() == note

    await kit.eventually(is_carried, "a checkpoint that is carried")


async def hang(_reader, _writer) -> None:
    await asyncio.Event().wait()


async def reset(_reader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def garbage(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01\x02 I am no HTTP server\r\n\r\n")
    await writer.drain()


async def huge_head(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 1_000_000 + b"\r\n\r\n")
    await writer.drain()


async def odd_status(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def impossible_status(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 099 Impossible\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("behave", "outcome", "reason"),
    [
        (impossible_status, "unreachable", "bad_response"),
        (hang, "timed_out", "response_timeout"),
        (reset, "unreachable", "reset"),
        (garbage, "unreachable", "bad_response"),
        (huge_head, "unreachable", "bad_response"),
        (odd_status, "refused", "status_999"),
    ],
)
async def test_a_destination_that_misbehaves_is_tried_again_and_ends(
    shop, start, kit, behave, outcome: str, reason: str
) -> None:
    policy = Policy(backoff=kit.QUICK, max_attempts=2, circuit_breaker=None, retry_status_codes=("999",))
    async with kit.Raw(behave) as raw:
        timeout = timedelta(milliseconds=300) if behave is hang else timedelta(minutes=1)
        await shop.send_to(raw.url, policy=policy, timeout=timeout)
        deliverer = await start()
        [delivery_id] = await shop.put()
        delivery = await shop.ends(State.EXHAUSTED, delivery_id)
        assert delivery.last_reason == reason
        tries = [listed.attempt for listed in await shop.attempts(delivery_id)]
        assert [(each.outcome, each.reason) for each in tries] == [(outcome, reason)] * 2
        assert await deliverer.metric("webhook_delivery_attempts_total", outcome=outcome) == 2


async def endless(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"z" * 4096 + b"\r\n")
        await writer.drain()


async def broken_off(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
    await writer.drain()


async def hanging_body(_reader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
    await writer.drain()
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("behave", "smallest", "largest"),
    [(endless, 256 * 1024, 1024 * 1024), (broken_off, 9, 9), (hanging_body, 9, 9)],
)
async def test_the_status_decides_and_a_body_without_an_end_is_let_go(
    shop, start, kit, behave, smallest: int, largest: int
) -> None:
    async with kit.Raw(behave) as raw:
        timeout = timedelta(seconds=3) if behave is hanging_body else timedelta(minutes=1)
        await shop.send_to(raw.url, timeout=timeout)
        await start()
        [delivery_id] = await shop.put()
        delivery = await shop.ends(State.DELIVERED, delivery_id)
        assert delivery.attempts == 1
        [listed] = await shop.attempts(delivery_id)
        assert smallest <= listed.attempt.response_size <= largest


async def test_nobody_who_listens_is_unreachable(shop, start, kit) -> None:
    policy = Policy(backoff=kit.QUICK, max_attempts=2, circuit_breaker=None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        await shop.send_to(f"http://127.0.0.1:{taken.getsockname()[1]}/hooks", policy=policy)
        await start()
        [delivery_id] = await shop.put()
        assert (await shop.ends(State.EXHAUSTED, delivery_id)).last_reason == "connect_refused"


async def test_a_name_that_does_not_resolve_is_unreachable_and_tried_again(shop, start, kit) -> None:
    policy = Policy(backoff=kit.QUICK, max_attempts=2, circuit_breaker=None)
    await shop.send_to("http://no-such-name.invalid/", policy=policy)
    await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.EXHAUSTED, delivery_id)
    assert (delivery.last_reason, delivery.attempts) == ("dns", 2)


@pytest.mark.parametrize(
    ("certificate", "state", "reason"),
    [("localhost.pem", State.DELIVERED, "status_200"), ("other.pem", State.EXHAUSTED, "certificate")],
)
async def test_a_certificate_must_be_for_the_name_that_is_called(
    shop, start, kit, certificate: str, state: State, reason: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit.TLS / certificate)
    secure = kit.Destination()
    runner = await secure.start(context)
    try:
        await shop.send_to(secure.url, policy=Policy(backoff=kit.QUICK, max_attempts=2, circuit_breaker=None))
        await start()
        [delivery_id] = await shop.put()
        assert (await shop.ends(state, delivery_id)).last_reason == reason
    finally:
        await runner.cleanup()


async def test_plain_http_spoken_to_a_tls_client_is_a_tls_failure(destination, shop, start, kit) -> None:
    url = destination.url.replace("http://", "https://")
    await shop.send_to(url, policy=Policy(backoff=kit.QUICK, max_attempts=1, circuit_breaker=None))
    await start()
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.EXHAUSTED, delivery_id)).last_reason == "tls"


async def test_a_redirect_to_a_metadata_address_is_refused_and_not_followed(destination, shop, start) -> None:
    async def redirect(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})

    destination.answer = redirect
    await shop.send_to(destination.url)
    await start()
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.EXHAUSTED, delivery_id)).last_reason == "status_302"
    assert len(await shop.attempts(delivery_id)) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_an_address_that_is_not_allowed_is_never_called(destination, shop, start, kit, host: str) -> None:
    shop.relay = RelayRow(allow_http=True)
    url = destination.url.replace("127.0.0.1", host)
    row = await shop.send_to(url, policy=Policy(backoff=kit.QUICK, max_attempts=2, circuit_breaker=None))
    deliverer = await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.EXHAUSTED, delivery_id)
    assert (delivery.last_reason, delivery.attempts) == ("address_denied", 2)
    assert destination.received == []
    count = await deliverer.metric("webhook_delivery_failures_total", fault="configuration", reason="address_denied")
    assert count == 2
    assert row.url == url


async def test_what_was_denied_goes_out_once_the_relay_allows_it(destination, shop, start, kit) -> None:
    shop.relay = RelayRow(allow_http=True)
    await shop.send_to(destination.url, policy=Policy(backoff=kit.QUICK, max_attempts=1000, circuit_breaker=None))
    await start()
    [delivery_id] = await shop.put()

    async def was_denied() -> bool:
        return (await shop.delivery(delivery_id)).last_reason == "address_denied"

    await kit.eventually(was_denied)
    shop.relay = kit.LOOPBACK
    await shop.apply()
    await shop.ends(State.DELIVERED, delivery_id)


async def test_without_a_key_nothing_is_sent_and_it_is_not_the_destinations_fault(
    destination, shop, start, kit
) -> None:
    policy = Policy(backoff=kit.QUICK, max_attempts=1, circuit_breaker=None)
    await shop.send_to(destination.url, key_name="generated/none", policy=policy)
    deliverer = await start()
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.EXHAUSTED, delivery_id)).last_reason == "no_signing_key"
    assert destination.received == []
    assert await deliverer.metric("webhook_delivery_failures_total", fault="configuration") == 1


async def test_retry_after_is_waited_for(destination, shop, start, kit) -> None:
    moments: list[float] = []

    async def busy(_: web.BaseRequest) -> web.StreamResponse:
        moments.append(asyncio.get_running_loop().time())
        if len(moments) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response()

    destination.answer = busy
    await shop.send_to(destination.url)
    await start()
    [delivery_id] = await shop.put()
    await shop.ends(State.DELIVERED, delivery_id)
    assert moments[1] - moments[0] >= 0.95

"""What bad input meets: a defined answer and a metric each, and nothing is stored."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kapsel_receiver.connection import Limits
from kapsel_store.rows import Verification

Make = Callable[..., Any]
GITHUB = Verification(scheme="github", key_name="in")


async def test_a_forged_or_unsigned_webhook_is_refused(
    receive: Any, post: Make, signed: Make, endpoint: Make, key: Make
) -> None:
    async with receive(endpoint(verification=GITHUB), keys=(key(),)) as receiver:
        forged = await receiver.exchange(post(b"x", signed(b"x", b"guessed")))
        unsigned = await receiver.exchange(post(b"x"))
        changed = await receiver.exchange(post(b"y", signed(b"x")))
        assert [answer.status for answer in (forged, unsigned, changed)] == [401, 401, 401]
        assert [answer.code for answer in (forged, unsigned, changed)] == [
            "signature_mismatch",
            "signature_missing",
            "signature_mismatch",
        ]
        assert forged.headers["www-authenticate"].startswith("Webhook-Signature")
        assert (receiver.count("signature_mismatch"), receiver.count("signature_missing")) == (2, 1)
        assert await receiver.events() == []


async def test_unknown_and_switched_off_urls_are_answered_alike(receive: Any, post: Make, endpoint: Make) -> None:
    async with receive(endpoint(paths=("Id",))) as receiver:
        paths = ("/ingest/shop/orders", "/ingest/shop/never", "/", "/ingest/", "/ingest/" + "9" * 36, "/health/live")
        answers = [await receiver.exchange(post(path=path)) for path in paths]
        for answer in answers:
            assert (answer.status, answer.code) == (404, "unknown_endpoint")
        assert len({answer.json["detail"] for answer in answers}) == 1
        assert receiver.count("unknown_endpoint", "unknown") == len(paths)
        assert await receiver.events() == []


async def test_before_the_first_configuration_no_endpoint_is_called_unknown(receive: Any, post: Make) -> None:
    async with receive(loaded=False) as receiver:
        answer = await receiver.exchange(post())
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "not_ready", "2")
        assert receiver.count("not_ready", "unknown") == 1


async def test_a_suspended_endpoint_asks_to_come_again_later(receive: Any, post: Make, endpoint: Make) -> None:
    async with receive(endpoint(suspend=True)) as receiver:
        answer = await receiver.exchange(post())
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "endpoint_suspended", "300")
        assert receiver.count("endpoint_suspended") == 1
        assert await receiver.events() == []


async def test_an_endpoint_whose_key_is_not_there_yet_blames_no_caller(
    receive: Any, post: Make, signed: Make, endpoint: Make
) -> None:
    async with receive(endpoint(verification=GITHUB)) as receiver:
        answer = await receiver.exchange(post(b"x", signed(b"x")))
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "signing_key_missing", "30")
        assert receiver.count("signing_key_missing") == 1


async def test_provider_consoles_may_look_at_the_url_with_get_and_head(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        looked = await receiver.exchange(post(b"", method="GET"))
        assert (looked.status, looked.json) == (200, {"status": "ready", "accepts": "POST"})
        assert (await receiver.exchange(post(b"", method="HEAD"), head=True)).status == 200
        assert (await receiver.exchange(post(b"", method="GET", path="/ingest/shop/never"))).status == 404
        assert await receiver.events() == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_other_methods_are_refused_with_what_is_allowed(receive: Any, post: Make, method: str) -> None:
    async with receive() as receiver:
        answer = await receiver.exchange(post(b"x", method=method))
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD, POST")
        assert receiver.count("method_not_allowed") == 1
        assert await receiver.events() == []


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_read(
    receive: Any, post: Make, endpoint: Make
) -> None:
    async with receive(endpoint(max_body_bytes=1000)) as receiver:
        wire = await receiver.connect()
        wire.send(post(b"x" * 1001).split(b"\r\n\r\n")[0] + b"\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (413, "body_too_large", "close")
        assert (await receiver.exchange(post(b"x" * 1000))).status == 202
        assert receiver.count("body_too_large") == 1


async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(receive: Any, endpoint: Make) -> None:
    async with receive(endpoint(max_body_bytes=1000)) as receiver:
        wire = await receiver.connect()
        wire.send(b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send((b"190\r\n" + b"x" * 400 + b"\r\n") * 3)
        answer = await wire.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        whole = b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nTransfer-Encoding: chunked\r\n\r\n"
        at_once = await receiver.exchange(whole + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
        assert at_once.code == "body_too_large"
        assert await receiver.events() == []


async def test_a_body_that_trickles_is_given_up(receive: Any, post: Make) -> None:
    async with receive(limits=Limits(body_timeout=0.3)) as receiver:
        wire = await receiver.connect()
        wire.send(post(b"x" * 100)[:-50])
        answer = await wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (408, "body_timeout", "close")
        assert await wire.closed()
        assert receiver.count("body_timeout") == 1
        assert await receiver.events() == []


async def test_headers_that_trickle_are_given_up_however_busily(receive: Any) -> None:
    async with receive(limits=Limits(header_timeout=0.4)) as receiver:
        wire = await receiver.connect()
        wire.send(b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\n")

        async def trickle() -> None:
            while True:
                wire.send(b"X-Slow: 1\r\n")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        answer = await wire.answer()
        trickling.cancel()
        assert (answer.status, answer.code) == (408, "header_timeout")
        assert await wire.closed()
        assert receiver.count("header_timeout", "unknown") == 1


async def test_an_idle_connection_outlives_the_header_deadline(receive: Any, post: Make, until: Make) -> None:
    async with receive(limits=Limits(header_timeout=0.2)) as receiver:
        slow, idle = await receiver.connect(), await receiver.connect()
        idle.send(post())
        assert (await idle.answer()).status == 202
        slow.send(b"POST")
        assert (await slow.answer()).status == 408  # the sweep has passed both
        idle.send(post())
        assert (await idle.answer()).status == 202


async def test_slow_clients_do_not_keep_others_waiting(receive: Any, post: Make) -> None:
    async with receive(limits=Limits(body_timeout=120.0, max_connections=600)) as receiver:
        slow = [await receiver.connect() for _ in range(300)]
        for wire in slow:
            wire.send(post(b"x" * 100)[:-50])
        async with asyncio.timeout(60):
            assert (await receiver.exchange(post())).status == 202


async def test_memory_for_unfinished_bodies_is_bounded(receive: Any, post: Make, until: Make) -> None:
    async with receive(limits=Limits(body_timeout=120.0, unfinished_bytes=100_000)) as receiver:
        wires = [await receiver.connect() for _ in range(4)]
        for wire in wires:
            wire.send(post(b"x" * 40_000)[:-1])
        await until(lambda: receiver.count("overloaded") >= 1)
        assert (await receiver.exchange(post(b"small"))).status == 202
        finished = []
        for wire in wires:
            wire.send(b"x")
            finished.append((await wire.answer()).status)
        assert sorted(finished)[:2] == [202, 202]
        assert finished.count(503) >= 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS to a plain port
        b"GET\r\n\r\n",
        b"POST /ingest/shop/orders HTTP/9.9\r\nHost: kapsel\r\n\r\n",
        b"POST /ingest/shop/orders HTTP/1.1\r\n\r\n",
        b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nContent-Length: ten\r\n\r\n",
        b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /ingest/shop/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nX Bad: 1\r\n\r\n",
        b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nX-Nul: a\x00b\r\n\r\n",
        bytes(range(256)) * 10,
    ],
)
async def test_what_is_not_http_is_answered_with_a_problem_and_the_connection_closed(
    receive: Any, garbage: bytes
) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(garbage)
        answer = await wire.answer()
        assert (answer.status, answer.code) == (400, "request_malformed")
        assert await wire.closed()
        assert receiver.count("request_malformed", "unknown") == 1
        assert await receiver.events() == []


async def test_ten_thousand_headers_or_a_huge_one_are_refused(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        many = {f"X-{number}": "1" for number in range(10_000)}
        huge = {"X-Huge": "x" * 100_000}
        for request in (post(b"", many), post(b"", huge), post(path="/ingest/" + "x" * 10_000)):
            answer = await receiver.exchange(request)
            assert (answer.status, answer.code) == (431, "header_too_large")
        assert receiver.count("header_too_large", "unknown") == 3
        assert (await receiver.exchange(post(b"", {f"X-{number}": "1" for number in range(100)}))).status == 202


async def test_no_headers_at_all_is_http_1_0_and_fine(receive: Any) -> None:
    async with receive() as receiver:
        assert (await receiver.exchange(b"POST /ingest/shop/orders HTTP/1.0\r\n\r\n")).status == 202
        assert [event["body"] for event in await receiver.events()] == [b""]


async def test_a_broken_chunk_is_refused(receive: Any) -> None:
    head = b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with receive(limits=Limits(body_timeout=120.0)) as receiver:
        broken = (head, b"3\r\nabc\r\n", b"zz\r\nabc")
        for parts in (broken, (b"".join(broken),)):
            wire = await receiver.connect()
            for part in parts:
                wire.send(part)
                await wire.writer.drain()
                await asyncio.sleep(0.05)
            answer = await wire.answer()
            assert (answer.status, answer.code) == (400, "body_malformed")
            assert await wire.closed()
        assert receiver.count("body_malformed") == 2
        assert await receiver.events() == []


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_counted_and_nothing_stored(
    receive: Any, post: Make, until: Make
) -> None:
    async with receive(limits=Limits(body_timeout=120.0)) as receiver:
        wire = await receiver.connect()
        wire.send(post(b"x" * 100)[:-50])
        await wire.writer.drain()
        await asyncio.sleep(0.05)
        wire.writer.close()
        await until(lambda: receiver.count("body_incomplete") == 1)
        assert await receiver.events() == []


async def test_connections_beyond_the_limit_are_told_so_at_once(receive: Any, post: Make, until: Make) -> None:
    async with receive(limits=Limits(max_connections=2)) as receiver:
        wires = [await receiver.connect() for _ in range(2)]
        for wire in wires:
            wire.send(post())
            assert (await wire.answer()).status == 202
        beyond = await receiver.connect()
        answer = await beyond.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "too_many_connections", "1")
        assert await beyond.closed()
        assert receiver.count("too_many_connections", "unknown") == 1
        wires[0].writer.close()
        await wires[0].writer.wait_closed()
        statuses = []
        while 202 not in statuses:
            statuses.append((await receiver.exchange(post())).status)
            assert len(statuses) < 100

"""Connections as senders use and misuse them: pieces, pipelines, offers, half-closed ends, and what never ends."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from kapsel_receiver.connection import PIPELINED, Connection, Limits
from kapsel_receiver.request import LARGEST_HEAD

Make = Callable[..., Any]
CHUNKED = b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_request_may_come_byte_by_byte(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        for byte in post(b"slowly", {"X-Event": "7"}):
            wire.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await wire.answer()).status == 202
        assert [event["body"] for event in await receiver.events()] == [b"slowly"]


@pytest.mark.parametrize("offered", [{"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}, {"Upgrade": "h2c"}])
async def test_an_offer_to_speak_another_protocol_is_declined_by_ignoring_it(
    receive: Any, post: Make, offered: dict[str, str]
) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        request = post(b'{"n": 1}', {**offered, "X-Event": "7"})
        for part in (request, request[:-3], request[-3:] + post(b'{"n": 2}')):
            wire.send(part)
            await wire.writer.drain()
        assert [(await wire.answer()).status for _ in range(3)] == [202] * 3
        bodies = [event["body"] for event in await receiver.events()]
        assert bodies == [b'{"n": 1}', b'{"n": 1}', b'{"n": 2}']


async def test_a_connect_is_refused_and_ends_the_connection(receive: Any) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n\x16\x03\x01")
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert await wire.closed()


async def test_who_has_sent_all_and_closes_its_half_still_hears_the_answers(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(post(b"1") + post(b"2"))
        wire.writer.write_eof()
        answers = [await wire.answer() for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202]
        assert answers[1].headers["connection"] == "close"
        assert await wire.closed()


async def test_a_refusal_that_ends_the_connection_comes_after_the_answers_before_it(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(post(b"1") + post(b"2") + b"nonsense\r\n\r\n" + post(b"3"))
        answers = [await wire.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [202, 202, 400]
        assert await wire.closed()
        assert [event["body"] for event in await receiver.events()] == [b"1", b"2"]


async def test_nothing_is_taken_that_comes_after_the_last_request(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(post(b"last", {"Connection": "close"}) + post(b"after"))
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await wire.closed()
        assert [event["body"] for event in await receiver.events()] == [b"last"]


async def test_many_more_pipelined_requests_than_are_under_way_at_once_are_all_answered(
    receive: Any, post: Make
) -> None:
    many = 20 * PIPELINED
    async with receive() as receiver:
        wire = await receiver.connect()
        for number in range(many):
            wire.send(post(b"%d" % number + b" " * 3000))
        ids = [(await wire.answer()).json["id"] for _ in range(many)]
        stored = {str(event["id"]): int(event["body"]) for event in await receiver.events()}
        assert [stored[one] for one in ids] == list(range(many))


async def test_a_sender_of_http_1_0_is_told_that_the_connection_stays_if_it_asked_for_that(
    receive: Any, post: Make
) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        old = post(b"1").replace(b"HTTP/1.1", b"HTTP/1.0")
        wire.send(old.replace(b"Host:", b"Connection: keep-alive\r\nHost:"))
        assert (await wire.answer()).headers["connection"] == "keep-alive"
        wire.send(old)
        assert (await wire.answer()).headers["connection"] == "close"
        assert await wire.closed()


@pytest.mark.parametrize(
    ("endless", "code", "status"),
    [
        (b"POST /ingest/shop/orders HTTP/1.1\r\nHost: kapsel\r\nX-Endless: ", "header_too_large", 431),
        (b"POST /ingest/shop/", "header_too_large", 431),
        (CHUNKED + b"1;", "body_malformed", 400),
        (CHUNKED + b"1\r\nx\r\n0\r\nX-Trailer: ", "body_malformed", 400),
    ],
)
async def test_a_line_that_never_ends_is_given_up(receive: Any, endless: bytes, code: str, status: int) -> None:
    async with receive(limits=Limits(header_timeout=120.0, body_timeout=120.0)) as receiver:
        wire = await receiver.connect()
        wire.send(endless)
        for _ in range(4):
            await wire.writer.drain()
            await asyncio.sleep(0.01)
            wire.send(b"a" * LARGEST_HEAD)
        answer = await wire.answer()
        assert (answer.status, answer.code) == (status, code)
        assert await wire.closed()
        assert await receiver.events() == []


async def test_trailers_are_read_over(receive: Any) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(CHUNKED + b"3\r\nabc\r\n0\r\nContent-Type: a/b\r\nX-Sum: 1\r\n\r\n" + CHUNKED + b"0\r\n\r\n")
        assert [(await wire.answer()).status for _ in range(2)] == [202, 202]
        assert [event["body"] for event in await receiver.events()] == [b"abc", b""]
        assert {event["content_type"] for event in await receiver.events()} == {"application/octet-stream"}


async def test_two_hosts_are_one_too_many(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        answer = await receiver.exchange(post(b"x", {"host": "another"}))
        assert (answer.status, answer.code) == (400, "request_malformed")


async def test_a_body_that_was_refused_by_its_head_is_read_for_a_moment_and_no_longer(receive: Any, post: Make) -> None:
    async with receive(limits=Limits(header_timeout=0.2)) as receiver:
        wire = await receiver.connect()
        wire.send(post(b"x" * 1000, path="/ingest/no/such")[:-1])
        answer = await wire.answer()
        assert (answer.status, answer.headers.get("connection")) == (404, None)
        assert await wire.closed()


async def test_who_does_not_read_its_answers_is_not_read_from_and_given_up(
    receive: Any, post: Make, until: Make
) -> None:
    async with receive(limits=Limits(body_timeout=0.2, header_timeout=120.0)) as receiver:
        wire = await receiver.connect()
        wire.writer.transport.pause_reading()
        flood = post(b"", path="/ingest/no/such") * 1000

        async def send() -> None:
            while True:
                wire.send(flood)
                await wire.writer.drain()

        with pytest.raises(ConnectionError):
            async with asyncio.timeout(120):
                await send()


async def test_what_is_under_way_is_stored_when_its_sender_has_left(
    receive: Any, post: Make, database: Any, until: Make
) -> None:
    owner = await database.connection()
    async with receive() as receiver:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        wire = await receiver.connect()
        wire.send(post(b"gone"))
        await receiver.commits_blocked(1)
        wire.writer.transport.abort()
        await lock.rollback()
        await owner.close()
        await until(lambda: receiver.count("accepted") == 1)
        assert [event["body"] for event in await receiver.events()] == [b"gone"]


async def test_the_memory_of_a_refused_body_is_free_for_others_at_once(receive: Any, post: Make, until: Make) -> None:
    async with receive(limits=Limits(unfinished_bytes=100_000)) as receiver:
        slow, refused = await receiver.connect(), await receiver.connect()
        slow.send(post(b"s" * 60_000)[:-1])
        await until(lambda: receiver.server.held > 50_000)
        refused.send(post(b"r" * 60_000)[:-1])
        assert (await refused.answer()).code == "overloaded"
        assert receiver.server.held < 60_000
        slow.send(b"s")
        assert (await slow.answer()).status == 202
        assert receiver.server.held == 0


async def test_a_body_of_tiny_chunks_takes_no_more_memory_than_it_holds(receive: Any, until: Make) -> None:
    size = 400_000
    async with receive() as receiver:
        wire = await receiver.connect()
        tracemalloc.start()
        try:
            wire.send(CHUNKED)
            for _ in range(100):
                wire.send(b"2\r\nab\r\n" * (size // 200))
                await wire.writer.drain()
            await until(lambda: receiver.server.held == size)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken < 4 * size
        wire.send(b"0\r\n\r\n")
        assert (await wire.answer()).status == 202
        assert [len(event["body"]) for event in await receiver.events()] == [size]


async def test_a_connection_that_is_lost_leaves_nothing_for_the_garbage_collector(
    receive: Any, post: Make, until: Make
) -> None:
    async with receive() as receiver:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                wire = await receiver.connect()
                wire.send(post(b"x" * 1000)[:-1])
                await until(lambda: receiver.server.held > 0)
                wire.writer.transport.abort()
                await until(lambda: receiver.server.open == 0)
            assert not [one for one in gc.get_objects() if isinstance(one, Connection)]
        finally:
            gc.enable()


async def test_a_line_without_end_after_a_refusal_is_not_kept(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kapsel_receiver.connection.LINGER", 120.0)
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(CHUNKED.replace(b"shop", b"no") + b"0\r\nX-Trailer: ")
        assert (await wire.answer()).status == 404
        for _ in range(6):
            wire.send(b"a" * LARGEST_HEAD)
            await wire.writer.drain()
            await asyncio.sleep(0.01)
        assert await wire.closed(20.0)


async def test_who_keeps_sending_after_its_refusal_is_cut_off(receive: Any, post: Make, until: Make) -> None:
    async with receive(limits=Limits(header_timeout=0.2, body_timeout=0.2)) as receiver:
        wire = await receiver.connect()
        wire.send(post(b"x" * 1000)[:-1])
        assert (await wire.answer()).code == "body_timeout"
        assert await wire.closed()
        await until(lambda: receiver.server.closing == 0, 30.0)
        assert receiver.server.open == 0


async def test_nothing_is_taken_that_came_together_with_a_request_whose_refusal_is_the_last_answer(
    receive: Any, post: Make
) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(post(b"1", {"Expect": "more"}) + post(b"2") + post(b"3", {"Expect": "100-continue"})[:-1])
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (417, "close")
        assert await wire.closed()
        assert (await receiver.exchange(post(b"4"))).status == 202
        assert [event["body"] for event in await receiver.events()] == [b"4"]


async def test_thousands_of_offers_may_come_at_once(receive: Any, post: Make) -> None:
    many = 3000
    async with receive() as receiver:
        wire = await receiver.connect()
        offer = {"Upgrade": "h2c", "Connection": "Upgrade"}
        wire.send(post(b"", offer, path="/ingest/no/such", method="GET") * many + post(b"{}", offer))
        statuses = [(await wire.answer()).status for _ in range(many + 1)]
        assert statuses == [404] * many + [202]


async def test_an_offer_of_http_1_0_is_still_http_1_0_without_it(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        offered = post(b"1", {"Upgrade": "h2c", "Connection": "Upgrade"}).replace(b"HTTP/1.1", b"HTTP/1.0")
        wire.send(offered.replace(b"Host: kapsel\r\n", b""))
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")


@pytest.mark.parametrize(
    ("version", "codings"),
    [
        ("1.0", ["chunked"]),
        ("1.1", ["gzip, chunked"]),
        ("1.1", ["identity", "chunked"]),
        ("1.1", [",chunked"]),
    ],
)
async def test_no_transfer_coding_is_taken_on_which_a_proxy_may_think_otherwise(
    receive: Any, version: str, codings: list[str]
) -> None:
    lines = "".join([f"Transfer-Encoding: {coding}\r\n" for coding in codings])
    head = f"POST /ingest/shop/orders HTTP/{version}\r\nHost: kapsel\r\nConnection: keep-alive\r\n{lines}\r\n"
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(head.encode() + b"3\r\nabc\r\n0\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (400, "request_malformed", "close")
        assert await wire.closed()
        assert await receiver.events() == []


@pytest.mark.parametrize("target", ["http://[::1/ingest/shop/orders", "http://[x]/ingest/shop/orders"])
async def test_a_target_that_is_no_url_is_a_mistake_of_its_sender(receive: Any, post: Make, target: str) -> None:
    async with receive() as receiver:
        answer = await receiver.exchange(post(path=target))
        assert (answer.status, answer.code) == (400, "request_malformed")


async def test_a_length_may_begin_with_many_zeros(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        request = post(b"12").replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5000)
        assert (await receiver.exchange(request)).status == 202
        assert [event["body"] for event in await receiver.events()] == [b"12"]


async def test_headers_too_many_are_refused_before_the_last_has_come(receive: Any) -> None:
    async with receive(limits=Limits(header_timeout=120.0)) as receiver:
        wire = await receiver.connect()
        wire.send(b"POST /ingest/shop/orders HTTP/1.1\r\n" + b"a:\r\n" * 1000)
        assert (await wire.answer()).code == "header_too_large"
        assert await wire.closed()


async def test_who_closes_its_half_in_the_middle_of_a_body_still_hears_of_those_before_it(
    receive: Any, post: Make
) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(post(b"1") + post(b"22")[:-1])
        wire.writer.write_eof()
        assert (await wire.answer()).status == 202
        assert (await wire.answer()).code == "body_incomplete"
        assert await wire.closed()
        assert [event["body"] for event in await receiver.events()] == [b"1"]


async def test_the_end_of_a_connection_is_seen_however_much_was_under_way(
    receive: Any, post: Make, until: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kapsel_receiver.connection.LINGER", 120.0)
    async with receive() as receiver:
        wire = await receiver.connect()
        unknown = post(b"", path="/ingest/no/such")
        wire.send(post(b"1") + unknown * (2 * PIPELINED) + b"nonsense\r\n\r\n")
        answers = [await wire.answer() for _ in range(2 + 2 * PIPELINED)]
        assert [answer.status for answer in answers] == [202, *[404] * (2 * PIPELINED), 400]
        assert await wire.closed()
        wire.writer.close()
        await until(lambda: receiver.server.closing == 0, 30.0)


async def test_a_refusal_to_who_waits_for_a_100_ends_the_connection(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wire = await receiver.connect()
        wire.send(post(b"x", {"Expect": "100-continue"}, path="/ingest/no/such")[:-1])
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert await wire.closed()


async def test_no_deadline_of_a_sender_runs_out_while_it_is_not_read_from(
    receive: Any, post: Make, database: Any
) -> None:
    owner = await database.connection()
    limits = Limits(header_timeout=1.0)
    async with receive(limits=limits) as receiver:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        wire = await receiver.connect()
        last = post(b"last")
        wire.send(post(b"1") * (PIPELINED + 1) + last[:10])
        await receiver.commits_blocked(1)
        await asyncio.sleep(2 * limits.header_timeout)
        await lock.rollback()
        await owner.close()
        assert [(await wire.answer()).status for _ in range(PIPELINED + 1)] == [202] * (PIPELINED + 1)
        wire.send(last[10:])
        assert (await wire.answer()).status == 202

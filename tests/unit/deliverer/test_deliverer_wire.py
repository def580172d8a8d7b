"""What a connection makes of the bytes of a response, however they arrive."""

import asyncio
import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.errors import BadResponseError, DisconnectedError, NoAnswerError
from kapsel_deliverer.exchange import BODY_KEPT, BODY_READ, Response
from kapsel_deliverer.wire import HEAD_LIMIT, HEADERS_LIMIT, INTERIM_LIMIT, JOINED, LINE_LIMIT, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
END = b""  # the server has closed the connection


class Transport(asyncio.Transport):
    """A transport that keeps what is written, and the unsent part of it as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


async def answered(*pieces: bytes, reset: bool = False) -> tuple[Response, bool]:
    """Return the response to a request, and whether another request may follow."""
    wire = Wire(Transport(), lambda _: None)
    answer = wire.ask(b"head", b"body")
    for piece in pieces:
        if piece:
            wire.data_received(piece)
    if END in pieces or reset:
        reusable = wire.reusable
        if not reset:
            wire.eof_received()
        wire.connection_lost(ConnectionResetError() if reset else None)
        return await answer, reusable
    assert answer.done()
    return await answer, wire.reusable


@pytest.mark.parametrize(
    ("pieces", "status", "body", "whole", "reusable"),
    [
        ([OK], 200, b"ok", True, True),
        ([b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"], 500, b"", True, True),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b"", True, True),
        ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"], 304, b"", True, True),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n"],
            200,
            b"ok",
            True,
            True,
        ),
        ([b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"], 200, b"ok", True, True),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n"], 200, b"ok", True, True),
        # What says that the connection ends with it.
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"], 200, b"ok", True, False),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"], 200, b"ok", True, False),
        ([b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"], 200, b"ok", True, True),
        # Responses before the response.
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], 200, b"ok", True, True),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK], 200, b"ok", True, True),
        ([b"HTTP/1.1 150 Odd\r\nContent-Length: 3\r\n\r\nodd" + OK], 200, b"ok", True, True),
        ([b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x00\x01"], 101, b"", True, False),
        ([b"HTTP/1.1 101 Switching\r\n\r\n"], 101, b"", True, False),
        # Bodies that last until the connection ends.
        ([b"HTTP/1.1 200 OK\r\n\r\no", b"k", END], 200, b"ok", True, False),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nok", END], 200, b"ok", True, False),
        ([b"HTTP/1.1 426 Upgrade\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", END], 426, b"", True, False),
        # Bodies that break off.
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", END], 200, b"ok", False, False),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", END], 200, b"ok", False, False),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2\r\nok\r\n", END], 200, b"ok", False, False),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n"], 200, b"ok", False, False),
        # More than was asked for: it must not be taken for the answer to the next request.
        ([OK + OK], 200, b"ok", True, False),
        ([OK + b"H"], 200, b"ok", True, False),
        ([OK + b"garbage"], 200, b"ok", True, False),
        ([OK, b"HTTP/1.1 "], 200, b"ok", True, False),
        ([b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"], 204, b"", True, False),
    ],
)
async def test_a_response_is_read_as_http_says_and_its_connection_used_again_only_if_nothing_is_left(
    pieces: Sequence[bytes], status: int, body: bytes, whole: bool, reusable: bool
) -> None:
    response, again = await answered(*pieces)
    assert (response.status, response.body, response.whole, again) == (status, body, whole, reusable)
    assert (response.size, response.digest) == (len(body), hashlib.sha256(body).digest())


async def test_a_body_that_lasts_until_the_end_is_not_whole_if_the_connection_was_reset() -> None:
    response, _ = await answered(b"HTTP/1.1 200 OK\r\n\r\nok", reset=True)
    assert (response.body, response.whole) == (b"ok", False)


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Null: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * LINE_LIMIT + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * (HEADERS_LIMIT + 1) + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"a" * 4000 + b"\r\n") * 9 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * (HEAD_LIMIT + 1),
        b"\r\n" * HEAD_LIMIT,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_LIMIT + 1),
    ],
)
async def test_what_is_no_response_is_refused_and_the_connection_broken_off(response: bytes) -> None:
    transport = Transport()
    wire = Wire(transport, lambda _: None)
    answer = wire.ask(b"", b"")
    for start in range(0, len(response), 1000):
        if not answer.done():
            wire.data_received(response[start : start + 1000])
    with pytest.raises(BadResponseError):
        await answer
    assert transport.closed


RESPONSES = (
    OK,
    b"HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\n" + OK,
    b"HTTP/1.1 404 Not Found\r\nX-Empty:\r\nX-Spaces:  a b \t\r\nX-Folded: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n",
)


@given(st.sampled_from(RESPONSES), st.lists(st.integers(1, 100), max_size=12))
def test_it_makes_no_difference_where_the_bytes_of_a_response_are_cut(response: bytes, cuts: list[int]) -> None:
    borders = sorted({0, len(response), *(cut for cut in cuts if cut < len(response))})
    pieces = [response[start:end] for start, end in pairwise(borders)]
    assert asyncio.run(answered(*pieces)) == asyncio.run(answered(response))


async def test_headers_are_kept_in_their_order_without_the_space_around_them_and_trailers_are_no_headers() -> None:
    response, _ = await answered(RESPONSES[2])
    assert response.fields == (
        (b"X-Empty", b""),
        (b"X-Spaces", b"a b"),
        (b"X-Folded", b"a b"),
        (b"Content-Length", b"3"),
    )
    assert response.values("x-spaces") == ["a b"]
    assert response.values("x-other") == []
    assert (await answered(RESPONSES[3]))[0].fields == ((b"Transfer-Encoding", b"chunked"),)


async def test_of_a_large_body_the_beginning_is_kept_and_no_more_read_than_is_hashed() -> None:
    body = bytes(range(256)) * (BODY_READ // 256)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    response, reusable = await answered(head % len(body), body)
    assert (response.body, response.size, response.whole, reusable) == (body[:BODY_KEPT], BODY_READ, True, True)
    assert response.digest == hashlib.sha256(body).digest()
    response, reusable = await answered(head % (len(body) * 2), body, b"x", b"y" * BODY_READ)
    assert (response.body, response.size, response.whole, reusable) == (body[:BODY_KEPT], BODY_READ + 1, False, False)
    assert response.digest == hashlib.sha256(body + b"x").digest()


async def test_when_time_is_up_what_has_come_after_the_status_is_the_response() -> None:
    for come, status in ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", 200), (b"HTTP/1.1 200 OK\r\n", None)):
        transport = Transport()
        wire = Wire(transport, lambda _: None)
        answer = wire.ask(b"", b"")
        wire.data_received(come)
        wire.expire()
        assert transport.closed
        if status is None:
            with pytest.raises(NoAnswerError):
                await answer
        else:
            assert ((await answer).status, (await answer).body, (await answer).whole) == (200, b"ok", False)


@pytest.mark.parametrize("come", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_connection_that_ends_before_there_is_a_status_is_no_answer(come: bytes) -> None:
    wire = Wire(Transport(), lambda _: None)
    answer = wire.ask(b"", b"")
    if come:
        wire.data_received(come)
    wire.eof_received()
    wire.connection_lost(None)
    with pytest.raises(DisconnectedError):
        await answer


async def test_many_requests_go_over_one_connection_in_turn() -> None:
    transport = Transport()
    wire = Wire(transport, lambda _: None)
    for number in range(3):
        answer = wire.ask(b"head%d " % number, b"body ")
        wire.data_received(b"HTTP/1.1 20%d OK\r\nX-Number: %d\r\nContent-Length: 1\r\n\r\n%d" % ((number,) * 3))
        response = await answer
        assert (response.status, response.body, response.values("x-number")) == (
            200 + number,
            str(number).encode(),
            [str(number)],
        )
        assert wire.reusable
    assert transport.written == b"head0 body head1 body head2 body "


async def test_a_large_body_follows_its_head_unchanged() -> None:
    transport = Transport()
    body = b"b" * (JOINED + 1)
    Wire(transport, lambda _: None).ask(b"head", body)
    assert transport.written == b"head" + body


async def test_what_is_said_without_being_asked_breaks_the_connection_off() -> None:
    transport = Transport()
    wire = Wire(transport, lambda _: None)
    wire.data_received(OK)
    assert transport.closed
    with pytest.raises(DisconnectedError):
        wire.ask(b"", b"")
    assert transport.written == b""


async def test_a_server_that_answers_before_it_has_heard_all_is_not_asked_again_over_the_same_connection() -> None:
    transport = Transport()
    wire = Wire(transport, lambda _: None)
    answer = wire.ask(b"head", b"body")
    transport.unsent = 1
    wire.data_received(OK)
    assert (await answer).whole
    assert not wire.reusable

"""The small server of pages, spoken to in bytes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import psutil
import pytest

from kapsel_runtime.pages import LARGEST_HEAD, Answer, Pages


class Asked:
    """One page that waits for its turn, and one that fails."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.turn = asyncio.Event()
        self.turn.set()
        self.headers: Mapping[str, str] = {}

    async def page(self, headers: Mapping[str, str]) -> Answer:
        self.headers = headers
        self.began.set()
        await self.turn.wait()
        return Answer(HTTPStatus.OK, b"here\n")

    async def broken(self, _: Mapping[str, str]) -> Answer:
        raise RuntimeError("a collector failed")


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
async def pages(asked: Asked) -> AsyncIterator[Pages]:
    pages = Pages({"/page": asked.page, "/broken": asked.broken})
    yield pages
    await pages.close(5)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_page_is_answered_and_the_connection_ends(pages: Pages, asked: Asked) -> None:
    port = await pages.start("127.0.0.1", 0)
    answer = await ask(port, b"GET /page?x=1 HTTP/1.1\r\nHost: me\r\nACCEPT:  text/plain \r\n\r\n")
    assert answer == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n"
        b"Connection: close\r\n\r\nhere\n"
    )
    assert asked.headers == {"host": "me", "accept": "text/plain"}


@pytest.mark.parametrize("before", [b"http://me", b"HTTPS://me:8080", b"http://[::1]:80"])
async def test_a_page_may_be_asked_for_by_its_whole_url(pages: Pages, before: bytes) -> None:
    port = await pages.start("127.0.0.1", 0)
    assert (await ask(port, b"GET " + before + b"/page?x=1 HTTP/1.1\r\nHost: me\r\n\r\n")).endswith(b"\r\n\r\nhere\n")
    for other in (b"", b"?/page", b"/http://me/page"):
        assert (await ask(port, b"GET " + before + other + b" HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("size", [0, 1 << 24])
async def test_a_body_is_neither_a_request_nor_in_the_way_of_the_answer(
    pages: Pages, asked: Asked, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kapsel_runtime.pages.LINGER_SECONDS", 60)  # a busy machine is no part of this
    port = await pages.start("127.0.0.1", 0)
    body = b"GET /page HTTP/1.1\r\n\r\n" + bytes(size)
    answer = await ask(port, b"POST /page HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert not asked.began.is_set()


async def test_who_asks_for_the_head_gets_the_length_and_no_body(pages: Pages) -> None:
    answer = await ask(await pages.start("127.0.0.1", 0), b"HEAD /page HTTP/1.1\r\n\r\n")
    assert b"\r\nContent-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"DELETE /page HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /broken HTTP/1.1\r\n\r\n", b"500 Internal Server Error"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
        (b"GET /page HTTP/2\r\n\r\n", b"400 Bad Request"),
        (b"GET /page HTTP/1.1\r\nX: " + b"x" * LARGEST_HEAD + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_no_question_for_a_page_is_refused(pages: Pages, request_: bytes, status: bytes) -> None:
    answer = await ask(await pages.start("127.0.0.1", 0), request_)
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")


async def test_an_answer_that_is_being_made_is_given_before_the_server_closes(pages: Pages, asked: Asked) -> None:
    asked.turn.clear()
    port = await pages.start("127.0.0.1", 0)
    answering = asyncio.create_task(ask(port, b"GET /page HTTP/1.1\r\n\r\n"))
    await asked.began.wait()
    closing = asyncio.create_task(pages.close(60))
    asked.turn.set()
    await closing
    assert (await answering).endswith(b"here\n")


async def test_who_connects_and_asks_nothing_does_not_keep_the_server_from_closing(pages: Pages) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await pages.start("127.0.0.1", 0))
    await ask(writer.get_extra_info("peername")[1], b"GET /page HTTP/1.1\r\n\r\n")  # so that the other was taken, too
    await pages.close(0.01)
    assert await reader.read() == b""
    writer.close()


async def test_who_does_not_take_its_answer_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kapsel_runtime.pages.ANSWER_SECONDS", 0.1)
    monkeypatch.setattr("kapsel_runtime.pages.LINGER_SECONDS", 0.1)

    async def large(_: Mapping[str, str]) -> Answer:
        return Answer(HTTPStatus.OK, bytes(1 << 24))

    pages = Pages({"/large": large})
    port = await pages.start("127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.transport.pause_reading()
    writer.write(b"GET /large HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(60):
        while any(
            found.laddr.port == port and found.status == psutil.CONN_ESTABLISHED
            for found in psutil.Process().net_connections("tcp")
        ):
            await asyncio.sleep(0.01)
    writer.transport.abort()
    await pages.close(5)


async def test_a_head_alone_is_answered_without_a_body(pages: Pages) -> None:
    port = await pages.start("127.0.0.1", 0)
    answer = await ask(port, b"HEAD /nothing HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n")

"""A few pages over HTTP/1.1 for probes and scrapers: GET and HEAD, no bodies, one request on each connection.

Used by `health`. A web framework would be the dearest import of a process that serves nothing else with it, and a
receiver waits for it before its first webhook. What the pages say is left to the caller.
"""

import asyncio
import logging
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NamedTuple

LARGEST_HEAD: Final = 16_384  # bytes
HEAD_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0  # to make an answer and for the other side to take it
LINGER_SECONDS: Final = 2.0  # for the other side to say the rest and to close, when it has its answer
METHODS: Final = "GET, HEAD"
_TEXT: Final = "text/plain; charset=utf-8"
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)  # what stands before the path (RFC 9112, 3.2.2)

logger = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a page answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT


Page = Callable[
    [Mapping[str, str]], Awaitable[Answer]
]  # given the headers of the request, by their names in lower case


class Pages:
    """A server of pages by their path, from `start` to `close`."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._answering: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port; 0 is any free one. The port may be held by who shares it (SO_REUSEPORT)."""
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=LARGEST_HEAD, reuse_port=True, start_serving=True
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, patience: float) -> None:
        """Stop listening, and close all connections when they have their answer, or after so many seconds."""
        if self._server is not None:
            self._server.close()
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=patience)
            for task in late:
                task.cancel()

    def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(await self._answer(head))
                await writer.drain()
        except asyncio.LimitOverrunError:
            writer.write(_written(Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"")))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # who asked has gone, or says nothing
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            await _closed(reader, writer)

    async def _answer(self, head: bytes) -> bytes:
        """Return the bytes that answer one request."""
        line, *fields = head.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        before = _ABSOLUTE.match(target)
        page = self._pages.get(target[before.end() if before else 0 :].partition("?")[0])
        if not version.startswith("HTTP/1."):
            return _written(Answer(HTTPStatus.BAD_REQUEST, b""))
        if page is None:
            return _written(Answer(HTTPStatus.NOT_FOUND, b"there is no such page\n"), has_body=method != "HEAD")
        if method not in ("GET", "HEAD"):
            return _written(Answer(HTTPStatus.METHOD_NOT_ALLOWED, b""), f"Allow: {METHODS}\r\n")
        named = (field.partition(":") for field in fields if field)
        headers = {name.lower(): value.strip() for name, _, value in named}
        try:
            answer = await page(headers)
        except Exception:
            logger.exception("%s could not be answered", target)
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"")
        return _written(answer, has_body=method == "GET")


async def _closed(reader: StreamReader, writer: StreamWriter) -> None:
    """Close a connection when its answer is through; who does not take it loses it."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _unread(reader, writer)
        writer.close()
        async with asyncio.timeout(ANSWER_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()


async def _unread(reader: StreamReader, writer: StreamWriter) -> None:
    """Throw away what still comes, such as a body: if that were left, the system would take the answer back."""
    if not writer.is_closing():
        writer.write_eof()
        while await reader.read(LARGEST_HEAD):
            pass


def _written(answer: Answer, more: str = "", *, has_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if has_body else b"")

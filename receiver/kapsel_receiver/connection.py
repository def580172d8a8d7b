"""The HTTP server under `app`: aiohttp's low-level one, with the two defences it leaves to us.

Headers have a deadline (aiohttp bounds their size and number, but lets them trickle in until the keep-alive time is
over), and connections have a number. What is not HTTP at all is answered with a problem document like everything else.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import RequestPayloadError

from kapsel_receiver.problems import Refusal, response, wire

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OnRefusal = Callable[[Refusal], str]  # counts and logs it, and returns a correlation id for the answer

KEEP_ALIVE: Final = 75.0  # seconds an idle connection stays open: longer than the usual proxy's 60
_CONTENT_TYPE: Final = re.compile(rb"\r\ncontent-type:[ \t]*([^\r\n]*)", re.IGNORECASE)
LINGER: Final = 2.0  # seconds to go on reading a body that was refused, so that its sender sees the answer


def without_repeats(head: bytes) -> bytes:
    """Take out a Content-Type that says once more what the first one said.

    Careless senders set it twice. aiohttp refuses that, rightly, but a webhook would be lost for a repetition that
    means nothing. Two that differ are left in, and refused.
    """
    end = head.find(b"\r\n\r\n")
    if not head.startswith(b"POST "):
        return head
    if head[: max(end, 0)].lower().count(b"\r\ncontent-type:") < 2:
        return head
    first, *others = _CONTENT_TYPE.finditer(head, 0, end + 2)
    if any(other[1] != first[1] for other in others):
        return head
    return head[: first.end()] + _CONTENT_TYPE.sub(b"", head[first.end() : end]) + head[end:]


class Connection(web.RequestHandler):
    """One connection of a Server; `app` marks where a request begins and ends."""

    __slots__ = ("_content", "_first_byte_at", "_handling", "_server")

    def __init__(self, server: "Server", *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=LINGER,
            access_log=None,  # type: ignore[arg-type]  # documented: None switches it off
        )
        self._server = server
        self._handling: StreamReader | None = None
        self._content: StreamReader | None = None  # of the last request
        self._first_byte_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse the connection beyond the limit at once: an answer is kinder than a queue nobody serves."""
        super().connection_made(transport)
        if self._server.open > self._server.max_connections:
            self._end(Refusal(code="too_many_connections", detail="try again shortly", retry_after=1))

    def data_received(self, data: bytes) -> None:
        """Note when the bytes of a request that is not complete yet began to come."""
        if self._first_byte_at is None and self._is_between_requests():
            self._first_byte_at = time.monotonic()
            data = without_repeats(data)
        super().data_received(data)
        if self._handling is not None and self._messages and not self._handling.is_eof():
            # Nothing can be parsed after a body that has not ended, except that its framing is broken: aiohttp queues
            # that as the next request, and leaves the reader of this body to its deadline.
            self._handling.set_exception(RequestPayloadError("the framing of the body is broken"))

    def _is_between_requests(self) -> bool:
        """Whether the next byte begins a request: a body that was refused early may still be coming."""
        return self._handling is None and not self._messages and (self._content is None or self._content.is_eof())

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading if it was paused; aiohttp calls this for every body, and would parse nothing once more."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def begin(self, content: StreamReader) -> None:
        """The headers of a request are complete, and its body comes through `content`."""
        self._handling = self._content = content

    def end(self) -> None:
        """The request is answered."""
        self._handling = None
        self._first_byte_at = None

    def close_if_slow(self, now: float) -> None:
        """End a connection whose headers have not come in time, however busily they trickle."""
        if self._handling is not None or self._first_byte_at is None:
            return
        if now - self._first_byte_at < self._server.header_timeout:
            return
        self._end(Refusal(code="header_timeout", detail=f"they took over {self._server.header_timeout:.0f} s"))

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - the signature is aiohttp's
        status: int = 500,  # noqa: ARG002
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer what could not be parsed; aiohttp calls this, and closes the connection afterwards."""
        refusal = _unparsable(exc)
        answer = response(refusal, self._server.on_refusal(refusal))
        answer.force_close()
        return answer

    def _end(self, refusal: Refusal) -> None:
        transport = self.transport
        if transport is not None:
            transport.write(wire(refusal, self._server.on_refusal(refusal)))
        self.force_close()


def _unparsable(error: BaseException | None) -> Refusal:
    if isinstance(error, LineTooLong) or (isinstance(error, BadHttpMessage) and "Too many headers" in error.message):
        return Refusal(code="header_too_large", detail="at most 128 headers and 8190 bytes a line are read", close=True)
    return Refusal(code="request_malformed", detail="it could not be parsed as HTTP/1.1", close=True)


class Server(web.Server):
    """Makes a Connection for each one that is accepted, and ends those whose headers are slow."""

    def __init__(self, handler: Handler, on_refusal: OnRefusal, *, header_timeout: float, max_connections: int) -> None:
        super().__init__(handler)
        self.on_refusal = on_refusal
        self.header_timeout = header_timeout
        self.max_connections = max_connections
        self.open = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=asyncio.get_running_loop())

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection."""
        self.open += 1
        self._empty.clear()
        super().connection_made(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count a connection no longer; aiohttp calls this once for each."""
        self.open -= 1
        if not self.open:
            self._empty.set()
        super().connection_lost(handler, exc)

    async def emptied(self, seconds: float) -> None:
        """Wait until every connection has ended, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    async def sweep(self) -> None:
        """Look for slow headers until cancelled; one walk a second costs less than a timer per request."""
        while True:
            await asyncio.sleep(min(1.0, self.header_timeout / 2))
            now = time.monotonic()
            for connection in self.connections:
                if isinstance(connection, Connection):
                    connection.close_if_slow(now)

"""The HTTP/1.1 server under `app` (RFC 9112): an asyncio protocol around httptools, which parses as Node.js does.

A general server makes of each request a stream, a task and a response with stages, which takes longer than all that a
webhook needs (ADR 11). Here a request is a head, and a body that is collected while it comes; the app is called twice
for it, and answers whenever it can. Answers go out in the order of their requests, which may all be under way at once.
Every wait has a deadline, of which one walk over all connections a second takes care.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from kapsel_receiver.answers import CONTINUE, Answer, wire
from kapsel_receiver.app import App, Visit, too_large
from kapsel_receiver.problems import Refusal
from kapsel_receiver.request import LARGEST_HEAD, LONGEST_LINE, MOST_HEADERS, Request, fields

KEEP_ALIVE: Final = 75.0  # seconds an idle connection stays open: longer than the usual proxy's 60
LINGER: Final = 2.0  # seconds to go on reading what was refused, so that its sender sees the answer
PIPELINED: Final = 16  # requests of one connection under way at once; more are read when these are answered
_FOREVER: Final = float("inf")
_VERSIONS: Final = frozenset({"1.0", "1.1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What callers may cost."""

    header_timeout: float = 10.0
    body_timeout: float = 30.0
    max_connections: int = 10_000
    unfinished_bytes: int = 67_108_864  # of bodies that are still coming: many slow large ones must not fill the memory


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "body",
        "counted",
        "expects",
        "head",
        "http_1_0",
        "idle",
        "message",
        "seen",
        "size",
        "stays",
        "until",
        "visit",
    )

    def __init__(self, *, stays: bool, http_1_0: bool = False, head: bool = False) -> None:
        self.stays = stays  # whether its sender wants the connection to stay open
        self.http_1_0 = http_1_0
        self.head = head
        self.expects = False  # its sender waits for a 100 before it sends the body
        self.visit: Visit | None = None  # until its body is whole
        self.body: bytes | bytearray = b""  # what is kept of it: in one piece, since many small ones take far more
        self.counted = 0  # bytes of that of which the server's budget has been told
        self.size = 0  # bytes of the body that have come, wanted or not
        self.seen = 0  # as many as that when the connection was last looked at
        self.idle = 0  # bytes that came since, and were none of the body
        self.until = _FOREVER  # when the body has to be whole
        self.message: bytes | None = None  # the answer


class Connection(asyncio.Protocol):
    """One connection of a Server. Those of its methods that begin with on_ are the parser's."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._app = server.app
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._unread = 0  # bytes of a head that came after its first ones
        self._head_began: float | None = None  # None while no head is coming
        self._upgrades = False
        self._refused: Refusal | None = None  # what a method of the parser found wrong
        self._current: _Exchange | None = None  # whose body is coming
        self._pending: deque[_Exchange] = deque()  # those that are not answered yet
        self._last = False  # no further request is read
        self._closes_at = _FOREVER  # after its last answer
        self._idle_since = time.monotonic()
        self._paused_at: float | None = None  # since when it is not read from
        self._stalled_at: float | None = None  # since when the other side does not read its answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse the connection beyond the limit at once: an answer is kinder than a queue nobody serves."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are registered nowhere as what they are
        self._server.add(self)
        most = self._server.limits.max_connections
        if self._server.open > most:
            self._end(Refusal(code="too_many_connections", detail="try again shortly", retry_after=1))
        if self._server.closing > most:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Count what had not come whole; what is under way is stored all the same."""
        self._transport = None
        del self._parser  # it refers to the connection, as the connection does to it
        current = self._current
        if current is not None:
            self._release(current)
            if current.visit is not None:
                self._app.refuse(current.visit, Refusal(code="body_incomplete", detail="the connection was closed"))
        self._pending.clear()
        if self._closes_at < _FOREVER:
            self._server.closing -= 1
        self._server.remove(self)

    def eof_received(self) -> bool:
        """Answer what came whole before the other side had nothing more to say, then close."""
        if not self._pending:
            return False
        current = self._current
        if current is not None and self._pending[0] is not current:
            self._refuse(current, Refusal(code="body_incomplete", detail="the connection was half closed", close=True))
        elif current is not None:
            return False
        self._last = True
        self._pending[-1].stays = False
        return True

    def pause_writing(self) -> None:
        """Read no more from who does not read."""
        self._stalled_at = time.monotonic()
        self._throttle()

    def resume_writing(self) -> None:
        """Go on."""
        self._stalled_at = None
        self._throttle()

    def data_received(self, data: bytes) -> None:
        """Parse what came; whatever is complete in it is under way afterwards."""
        if self._last:
            return
        before, began = self._current, self._head_began
        try:
            self._parse(data)
        except HttpParserError:
            self._break()
        else:
            if self._current is not None:
                self._account_body(self._current, len(data) if self._current is before else 0)
            elif self._head_began is not None:
                self._account_head(len(data) if began == self._head_began else 0)

    def on_message_begin(self) -> None:
        """Begin with the first byte of a request, unless an answer to one before it was the last."""
        if self._last:
            raise ValueError("nothing more is read")
        self._head_began = time.monotonic()
        self._target = b""
        self._fields = []
        self._unread = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._target += url
        if len(self._target) > LONGEST_LINE:
            self._stop(_too_large_a_head())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header; those after the body are of no use to anybody."""
        if self._current is None:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Ask the app whether the body may come."""
        parser = self._parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        if parser.should_upgrade() and method != "CONNECT":
            self._upgrades = True  # the parser takes the message to end here: see `_go_on`
            return
        request = self._request(method, version)
        stays = parser.should_keep_alive() and method != "CONNECT"  # what follows one, if it were taken, is no HTTP
        exchange = _Exchange(stays=stays, http_1_0=version == "1.0", head=method == "HEAD")
        self._head_began = None
        self._current = exchange
        self._pending.append(exchange)
        admitted = self._app.admit(request)
        expectation = request.headers.get("Expect")
        if isinstance(admitted, Answer):
            if expectation is not None:
                exchange.stays = False  # nobody knows whether its body will come, or the next request
            exchange.until = time.monotonic() + LINGER
            self._answer(exchange, admitted)
            return
        exchange.visit = admitted
        exchange.until = admitted.started + self._server.limits.body_timeout
        if expectation is not None and not exchange.http_1_0:
            if expectation.lower() == "100-continue":
                exchange.expects = True
            else:
                detail = "only 100-continue can be expected"
                self._refuse(exchange, Refusal(code="expectation_failed", detail=detail, close=True))

    def on_body(self, chunk: bytes) -> None:
        """Take a piece of the body, as long as it is wanted."""
        exchange = self._current
        if exchange is None:
            return
        exchange.size += len(chunk)
        if exchange.visit is None:
            return
        if exchange.size > exchange.visit.endpoint.row.max_body_bytes:
            self._refuse(exchange, too_large(exchange.visit.endpoint))
        elif not exchange.body:
            exchange.body = chunk
        else:
            if isinstance(exchange.body, bytes):
                exchange.body = bytearray(exchange.body)
            exchange.body += chunk

    def on_message_complete(self) -> None:
        """Give the webhook to the app."""
        exchange, self._current = self._current, None
        if exchange is None:
            return
        body = self._release(exchange)
        visit, exchange.visit = exchange.visit, None
        if not exchange.stays:
            self._last = True
        if visit is not None:
            self._app.take(visit, bytes(body), partial(self._answer, exchange))
        if len(self._pending) > PIPELINED:
            self._throttle()

    def look(self, now: float) -> None:
        """End what has taken too long; the server calls this about once a second."""
        limits, current = self._server.limits, self._current
        if self._closes_at < _FOREVER:
            if now >= self._closes_at:
                self.abort()
        elif self._stalled_at is not None and now - self._stalled_at >= limits.body_timeout:
            self.abort()
        elif self._paused_at is not None:
            pass  # it is for us to go on
        elif current is not None:
            if now >= current.until:
                self._give_up(current)
        elif self._head_began is not None:
            if now - self._head_began >= limits.header_timeout:
                self._end(Refusal(code="header_timeout", detail=f"they took over {limits.header_timeout:.0f} s"))
        elif now - self._idle_since >= KEEP_ALIVE:
            self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close the connection unless something is under way on it."""
        if self._transport is not None and not self._pending and self._current is None and self._head_began is None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _request(self, method: str, version: str) -> Request:
        """Return the request whose head is complete, or break it off."""
        sizes = [len(name) + len(value) for name, value in self._fields]
        if len(sizes) > MOST_HEADERS or sum(sizes) > LARGEST_HEAD or (sizes and max(sizes) > LONGEST_LINE):
            self._stop(_too_large_a_head())
        try:
            headers = fields(self._fields)
        except ValueError as error:
            self._stop(Refusal(code="request_malformed", detail=str(error), close=True))
        hosts = len(headers.getall("Host", ()))
        if version not in _VERSIONS or hosts > 1 or (version == "1.1" and not hosts):
            self._stop(_not_http())
        coding = headers.get("Transfer-Encoding")
        if coding is not None and (version == "1.0" or coding.lower() != "chunked"):
            detail = "of transfer codings only chunked is known, and only in HTTP/1.1"
            self._stop(Refusal(code="request_malformed", detail=detail))
        request = Request(method, self._target.decode("utf-8", "surrogateescape"), headers)
        if not request.has_url():
            self._stop(_not_http())
        return request

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Break the parser off; the error comes out of it again as one of its own."""
        self._refused = refusal
        raise ValueError(refusal.code)

    def _break(self) -> None:
        """Answer what cannot be parsed, and read no further."""
        if self._last:
            return  # something came after the last request
        refusal, current = self._refused, self._current
        if current is None:
            self._end(refusal or _not_http())
        elif current.visit is not None:
            self._refuse(current, Refusal(code="body_malformed", detail="the framing is broken", close=True))
        else:
            self._hang_up(current)

    def _parse(self, data: bytes) -> None:
        """Give the parser what came, as often as it takes: it stops after each request that offers another protocol."""
        rest: bytes | memoryview = data
        while True:
            try:
                self._parser.feed_data(rest)
            except HttpParserUpgrade as upgrade:
                if not self._upgrades:
                    return  # a CONNECT, which was refused
                rest = memoryview(rest)[upgrade.args[0] :]
                self._go_on()
            else:
                return

    def _go_on(self) -> None:
        """Read the head of a request again that offered to change the protocol, without its offer.

        It may be declined by ignoring it (RFC 9110, 7.8), but httptools then takes the body for the other protocol.
        Java's client makes that offer, of h2c, with every request by default.
        """
        self._upgrades = False
        kept = [(name, value) for name, value in self._fields if name.lower() != b"upgrade"]
        head = b"".join([b"%s: %s\r\n" % field for field in kept])
        version = self._parser.get_http_version().encode("ascii")
        line = b"%s %s HTTP/%s\r\n" % (self._parser.get_method(), self._target, version)
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(b"%s%s\r\n" % (line, head))

    def _account_head(self, received: int) -> None:
        """Bound a head that is still coming: of one line that has not ended the parser says nothing.

        What is kept of a header is some hundred bytes, and it takes four to send one.
        """
        self._unread += received
        if self._unread > 2 * LARGEST_HEAD or len(self._fields) > MOST_HEADERS:
            self._end(_too_large_a_head())

    def _account_body(self, current: _Exchange, received: int) -> None:
        """Bound a body that is still coming, and tell its sender to go on if it waits for that."""
        kept = len(current.body)
        self._server.held += kept - current.counted
        current.counted = kept
        current.idle = 0 if current.size > current.seen else current.idle + received
        current.seen = current.size
        if current.visit is None:
            if current.idle > LARGEST_HEAD:
                self._hang_up(current)
        elif self._server.held > self._server.limits.unfinished_bytes:
            detail = "too many large bodies at once"
            self._refuse(current, Refusal(code="overloaded", detail=detail, retry_after=1, close=True))
        elif current.idle > LARGEST_HEAD:
            self._refuse(current, Refusal(code="body_malformed", detail="hardly anything of it is body", close=True))
        elif current.expects:
            self._tell_to_go_on()

    def _tell_to_go_on(self) -> None:
        """Answer `Expect: 100-continue`, which senders of large bodies wait for, when its turn has come."""
        first = self._pending[0]
        if first.expects and not first.size and self._transport is not None:
            self._transport.write(CONTINUE)
        first.expects = False

    def _give_up(self, current: _Exchange) -> None:
        if current.visit is None:
            self._hang_up(current)
        else:
            detail = f"the body did not end within {self._server.limits.body_timeout:.0f} s"
            self._refuse(current, Refusal(code="body_timeout", detail=detail, close=True))

    def _hang_up(self, current: _Exchange) -> None:
        """Close after a request that was answered by its head, and whose body does not come as it should."""
        self._last = True
        current.stays = False
        if current not in self._pending and self._transport is not None:
            self._close(self._transport)

    def _release(self, exchange: _Exchange) -> bytes | bytearray:
        """Return what is kept of a body, and keep it no longer."""
        self._server.held -= exchange.counted
        exchange.counted = 0
        body, exchange.body = exchange.body, b""
        return body

    def _end(self, refusal: Refusal) -> None:
        """Answer what is no request, after all that came before it, and close."""
        self._head_began = None
        self._last = True
        exchange = _Exchange(stays=False)
        self._pending.append(exchange)
        self._answer(exchange, self._app.refuse_connection(refusal))

    def _refuse(self, exchange: _Exchange, refusal: Refusal) -> None:
        """Answer a request whose body is not wanted."""
        visit, exchange.visit = exchange.visit, None
        self._release(exchange)
        if visit is not None:
            self._answer(exchange, self._app.refuse(visit, refusal))

    def _answer(self, exchange: _Exchange, answer: Answer) -> None:
        """Answer one request, now or when those before it are answered."""
        if self._transport is None or self._closes_at < _FOREVER:
            return  # nobody is there any more
        if answer.close or (self._server.leaving and exchange is self._pending[-1]):
            exchange.stays = False
            self._last = True
        exchange.message = wire(answer, stays=exchange.stays, http_1_0=exchange.http_1_0, head=exchange.head)
        if exchange is self._pending[0]:
            self._flush(self._transport)

    def _flush(self, transport: asyncio.Transport) -> None:
        """Write the answers whose turn it is."""
        pending = self._pending
        while pending and (message := pending[0].message) is not None:
            exchange = pending.popleft()
            transport.write(message)
            if not exchange.stays:
                self._close(transport)
                return
        if not pending:
            self._idle_since = time.monotonic()
        elif pending[0].expects:
            self._tell_to_go_on()
        if self._paused_at is not None:
            self._throttle()

    def _close(self, transport: asyncio.Transport) -> None:
        """Say that this was the last answer, and let the other side close: its next bytes could undo the answer."""
        self._last = True
        self._pending.clear()
        self._closes_at = time.monotonic() + LINGER
        self._server.closing += 1
        with suppress(OSError):
            transport.write_eof()
        self._throttle()

    def _throttle(self) -> None:
        """Read only from who also reads, and not far ahead of the answers; after the last one, to see the end."""
        pausing = self._stalled_at is not None or len(self._pending) > PIPELINED
        pausing = pausing and self._closes_at == _FOREVER
        if self._transport is None or pausing == (self._paused_at is not None):
            return
        now = time.monotonic()
        if self._paused_at is None:
            self._paused_at = now
            self._transport.pause_reading()
        else:
            self._postpone(now - self._paused_at)
            self._paused_at = None
            self._transport.resume_reading()

    def _postpone(self, seconds: float) -> None:
        """Give a sender the time back in which it was not read from."""
        if self._head_began is not None:
            self._head_began += seconds
        if self._current is not None:
            self._current.until += seconds


def _not_http() -> Refusal:
    return Refusal(code="request_malformed", detail="it could not be parsed as HTTP/1.1")


def _too_large_a_head() -> Refusal:
    detail = f"at most {MOST_HEADERS} headers, {LONGEST_LINE} bytes a line and {LARGEST_HEAD} in all are read"
    return Refusal(code="header_too_large", detail=detail)


class Server:
    """Makes a Connection for each one that is accepted: what `loop.create_server` is given."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.held = 0  # bytes of bodies that are still coming
        self.closing = 0  # connections that have had their last answer
        self.leaving = False
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __call__(self) -> Connection:
        return Connection(self)

    @property
    def open(self) -> int:
        """How many connections there are that may still bring something."""
        return len(self._connections) - self.closing

    def add(self, connection: Connection) -> None:
        """Count a connection."""
        self._connections.add(connection)
        self._empty.clear()

    def remove(self, connection: Connection) -> None:
        """Count a connection no longer."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def leave(self) -> None:
        """End each connection with its next answer: the sender opens another one, where somebody goes on listening."""
        self.leaving = True

    async def emptied(self, seconds: float) -> None:
        """Wait until every connection has ended, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    async def shutdown(self, seconds: float) -> None:
        """Close the idle connections at once, the others when they are answered or so many seconds have passed."""
        self.leaving = True
        for connection in tuple(self._connections):
            connection.close_if_idle()
        await self.emptied(seconds)
        for connection in tuple(self._connections):
            connection.abort()
        await self.app.finish()

    async def sweep(self) -> None:
        """Look at every connection about once a second until cancelled: cheaper than a timer for each request."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.header_timeout / 2, self.limits.body_timeout / 2))
            now = time.monotonic()
            for connection in tuple(self._connections):
                connection.look(now)

"""One connection to a destination: a request goes out, a bounded response comes in.

`pool` makes these, lends them and takes them back; what may go wrong stays an exception here. The parser is llhttp, as
in aiohttp, and as lenient as there: a server that ends its lines carelessly has got the webhook all the same.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from kapsel_deliverer.errors import BadResponseError, DisconnectedError, NoAnswerError
from kapsel_deliverer.exchange import BODY_KEPT, BODY_READ, Header, Response, headers_text

LINE_LIMIT: Final = 8190  # bytes of one header
HEADERS_LIMIT: Final = 128  # headers of one response, trailers and those of interim responses among them
HEAD_LIMIT: Final = 32 * 1024  # bytes of all of these
INTERIM_LIMIT: Final = 100  # responses with 1xx before the final one
JOINED: Final = 64 * 1024  # bytes of a body that are copied behind its head: one write of both costs less than two

_NOTHING: Final = hashlib.sha256().digest()


class Wire(asyncio.Protocol):
    """One request at a time."""

    __slots__ = (
        "_answer",
        "_closed_by_peer",
        "_ended",
        "_hash",
        "_head_size",
        "_headers",
        "_heard",
        "_interim",
        "_kept",
        "_loop",
        "_lost",
        "_parser",
        "_size",
        "_status",
        "_transport",
        "reusable",
    )

    def __init__(self, transport: asyncio.Transport, lost: Callable[["Wire"], None]) -> None:
        """Take over a transport that is connected; call `lost` once the connection has ended."""
        self._loop = asyncio.get_running_loop()  # to ask for it each time is a system call
        self._transport = transport
        self._lost = lost
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._answer: asyncio.Future[Response] | None = None  # what is waited for
        self._closed_by_peer = False
        self._ended = False
        self.reusable = False  # the last exchange has left nothing behind
        self._forget()
        transport.set_protocol(self)

    def _forget(self) -> None:
        self._status: int | None = None  # of the final response, once its head has come
        self._headers: list[Header] = []
        self._heard = self._head_size = self._interim = 0
        self._kept = b""
        self._size = 0
        self._hash: hashlib._Hash | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request could be sent."""
        return not self._transport.is_closing()

    def ask(self, head: bytes, body: bytes) -> asyncio.Future[Response]:
        """Send a request; the answer comes by itself, or else BadResponseError, DisconnectedError or NoAnswerError.

        After the status nothing is raised: a body that hangs or breaks off is what there is of it.
        """
        if self._transport.is_closing():
            raise DisconnectedError
        self._forget()
        self.reusable = False
        self._answer = answer = self._loop.create_future()
        if len(body) <= JOINED:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    def expire(self) -> None:
        """Time is up: what there is of a response is all, and without a status there is none."""
        self._end(NoAnswerError())

    def abort(self) -> None:
        """Break off the connection, whatever is under way."""
        self._answer = None
        self.reusable = False
        if not self._ended:  # asyncio's TLS in Python 3.11.2 fails at what is gone
            self._transport.abort()

    def close(self) -> None:
        """End the connection properly; nothing is under way."""
        self.reusable = False
        self._transport.close()

    def _end(self, error: Exception) -> None:
        """Answer with what has come so far, or with the error, and break off."""
        if self._answer is not None and self._status is None and not self._answer.done():
            self._answer.set_exception(error)
        elif self._status is not None:
            self._respond(whole=False)
        self.abort()

    def _respond(self, *, whole: bool) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done() or self._status is None:
            return
        fields = tuple(self._headers)
        response = Response(
            status=self._status,
            headers=headers_text(fields),
            fields=fields,
            body=self._kept,
            size=self._size,
            digest=_NOTHING if self._hash is None else self._hash.digest(),
            whole=whole,
        )
        answer.set_result(response)

    # What the transport says

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody has asked, so this would be taken for the answer to the next request
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # after the 101, which is the answer
        except HttpParserError as error:
            self._end(BadResponseError(str(error)))
            return
        if self._status is None:
            self._heard += len(data)
            if self._heard > HEAD_LIMIT:
                self._end(BadResponseError("the head of the response has no end"))

    def eof_received(self) -> None:
        self._closed_by_peer = True  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self.reusable = False
        if self._status is not None:
            self._respond(whole=exc is None and self._closed_by_peer and self._lasts_until_close())
        elif self._answer is not None and not self._answer.done():
            self._answer.set_exception(DisconnectedError())
        self._answer = None
        del self._parser  # it refers to this object
        self._lost(self)

    def _lasts_until_close(self) -> bool:
        """Whether the end of the connection is how the body ends (RFC 9112, 6.3)."""
        names = {name.lower(): value for name, value in self._headers}  # of several the last one
        codings = names.get(b"transfer-encoding", b"").lower()
        return codings.rpartition(b",")[2].strip() != b"chunked" and b"content-length" not in names

    # What the parser says

    def on_message_begin(self) -> None:
        if self._answer is None:  # more than what was asked for
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value)
        self._head_size += size
        if size > LINE_LIMIT or self._head_size > HEAD_LIMIT or b"\0" in value:
            raise BadResponseError("a header is too long, or holds a null byte")
        if self._status is None:  # else it is a trailer
            self._headers.append((name, value.rstrip(b" \t")))
            if len(self._headers) > HEADERS_LIMIT:
                raise BadResponseError("there are too many headers")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not 100 <= status < 200 or status == 101:
            self._status = status
            return
        self._headers = []
        self._interim += 1
        if self._interim > INTERIM_LIMIT:
            raise BadResponseError("there are too many interim responses")

    def on_body(self, piece: bytes) -> None:
        if self._status is None or self._answer is None:
            return
        if self._hash is None:
            self._hash = hashlib.sha256(piece)
        else:
            self._hash.update(piece)
        self._size += len(piece)
        if len(self._kept) < BODY_KEPT:
            self._kept += piece[: BODY_KEPT - len(self._kept)]
        if self._size > BODY_READ:
            self._respond(whole=False)

    def on_message_complete(self) -> None:
        if self._status is None or self._answer is None:
            return
        self.reusable = (
            self._status != 101
            and self._parser.should_keep_alive()
            and not self._transport.get_write_buffer_size()  # else it has answered before it heard all
        )
        self._respond(whole=True)

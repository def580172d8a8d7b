"""One request on a connection of aiohttp's pool: bytes out, a bounded response in.

The sender calls this. aiohttp resolves, connects, pools and parses; what its ClientSession does around that (cookies,
redirects, proxies, building a request from parts) a webhook has no use for, and it takes more time than all the rest
of a try together. What may go wrong stays an exception here: the sender makes values of them.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

BODY_KEPT: Final = 16 * 1024  # bytes of a response that are stored
BODY_READ: Final = 256 * 1024  # bytes of a response that are read and hashed; then the connection is closed
REDACTED: Final = "[redacted]"
HEADERS_KEPT: Final = 8 * 1024  # bytes of response headers that are stored
FEW_HEADERS: Final = 16  # most responses have fewer, and one destination's are the same for a second: its Date changes

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Response(NamedTuple):
    """What came back, bounded."""

    status: int
    headers: str  # JSON: a list of [name, value] pairs
    retry_after: str | None
    body: bytes  # the first BODY_KEPT bytes
    size: int  # as far as it was read
    digest: bytes  # SHA-256 of what was read
    whole: bool  # the body was read to its end
    fields: CIMultiDictProxy[str]  # all headers


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Return headers as they are sent; raise ValueError for one that would read as something else."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # One look at the whole: a line too many, or a byte that no header may hold.
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header holds a line break or a null byte")
    return lines.encode("utf-8", "surrogateescape")


def request_lines(url: URL, headers: Mapping[str, str], method: str = "POST") -> bytes:
    """Return the beginning of every request to a URL, its constant headers included."""
    for name in headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
    line = f"{method} {url.raw_path_qs} HTTP/1.1\r\nhost: {url.host_port_subcomponent}\r\n"
    return line.encode("ascii") + header_lines(headers)


class Exchange:
    """One request and its response; says afterwards how far it got in time."""

    def __init__(self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> None:
        self._connector = connector
        self._timeout = timeout
        self.connected = False
        self.expired = False

    async def send(self, request: ClientRequest, head: bytes, body: bytes) -> Response:
        """Send and wait for the response, in all as long as the timeout allows.

        Raises aiohttp.ClientError, HttpProcessingError, OSError or TimeoutError while there is no status. After that
        nothing is raised: a body that hangs or breaks off is what there is of it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout.total or 0.0)
        connection = await self._connector.connect(request, [], self._timeout)
        self.connected = True
        # Time's up means the connection is broken off, which every wait for it notices: cheaper than a scope of time.
        timer = loop.call_at(deadline, self._expire, connection)
        try:
            message, payload = await _ask(connection, head, body)
            return await _read(connection, message, payload)
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()

    def _expire(self, connection: Connection) -> None:
        self.expired = True
        if connection.transport is not None:
            connection.transport.abort()


async def read_whole(content: StreamReader, most: int) -> bytes | None:
    """Return a body that came in however many pieces, None if it is longer than `most`."""
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


async def _ask(connection: Connection, head: bytes, body: bytes) -> tuple[RawResponseMessage, StreamReader]:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None:
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    transport.writelines((head, body))
    message, payload = await protocol.read()
    while 100 <= message.code < 200 and message.code != 101:
        message, payload = await protocol.read()
    return message, payload


async def _read(connection: Connection, message: RawResponseMessage, payload: StreamReader) -> Response:
    """Read a response as far as it is wanted, and give its connection back, or close it if there is more."""
    if payload.is_eof() and payload.exception() is None:  # nearly always: it came in one piece with its head
        kept = payload.read_nowait()
        hashed, size, whole = hashlib.sha256(kept), len(kept), True
        kept = kept[:BODY_KEPT]
    else:
        kept, hashed, size, whole = b"", hashlib.sha256(), 0, False
        try:
            while size < BODY_READ and not whole:
                chunk = await payload.readany()
                hashed.update(chunk)
                size += len(chunk)
                kept += chunk[: BODY_KEPT - len(kept)]
                whole = not chunk
        except (aiohttp.ClientError, OSError):
            pass  # the status has been said
    unsent = connection.transport is not None and connection.transport.get_write_buffer_size()
    if whole and not unsent:
        connection.release()
    else:
        connection.close()
    return Response(
        status=message.code,
        headers=_headers(message.raw_headers)
        if len(message.raw_headers) > FEW_HEADERS
        else _few_headers(message.raw_headers),
        retry_after=message.headers.get("retry-after"),
        body=kept,
        size=size,
        digest=hashed.digest(),
        whole=whole,
        fields=message.headers,
    )


def _headers(raw: tuple[tuple[bytes, bytes], ...]) -> str:
    """Return the first headers as JSON; latin-1, because any byte may stand in them."""
    kept, size = [], 0
    for name, value in raw:
        size += len(name) + len(value)
        if size > HEADERS_KEPT:
            break
        kept.append((name.decode("latin-1"), value.decode("latin-1")))
    return json.dumps(kept)


_few_headers = lru_cache(maxsize=64)(_headers)


def redacted(response: Response, secrets: Collection[bytes]) -> Response:
    """Return a response without what we sent as secrets: some servers answer with the request that they got.

    Sizes and digests stay those of what came.
    """
    headers, body = response.headers, response.body
    for secret in sorted(secrets, key=len, reverse=True):
        headers = headers.replace(json.dumps(secret.decode("latin-1"))[1:-1], REDACTED)
        body = body.replace(secret, REDACTED.encode())
        # What is kept may end in the middle of it.
        cut = next((n for n in range(min(len(secret), len(body)), 3, -1) if body.endswith(secret[:n])), 0)
        if cut and response.size > BODY_KEPT:
            body = body[:-cut]
    if headers == response.headers and body == response.body:
        return response
    return response._replace(headers=headers, body=body)

"""What goes over a connection: the bytes of a request, and a response as far as it is kept.

`targets` and the sender make the one, `wire` the other. What a client's session would do besides (cookies, redirects,
proxies, building a request from parts) a webhook has no use for.
"""

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp.streams import StreamReader
from yarl import URL

BODY_KEPT: Final = 16 * 1024  # bytes of a response that are stored
BODY_READ: Final = 256 * 1024  # bytes of a response that are read and hashed; then the connection is closed
REDACTED: Final = "[redacted]"
HEADERS_KEPT: Final = 8 * 1024  # bytes of response headers that are stored
FEW_HEADERS: Final = 16  # most responses have fewer, and one destination's are the same for a second: its Date changes

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Header = tuple[bytes, bytes]


class Response(NamedTuple):
    """What came back, bounded."""

    status: int
    headers: str  # JSON: a list of [name, value] pairs, the first ones
    fields: tuple[Header, ...]  # all of them
    body: bytes  # the first BODY_KEPT bytes
    size: int  # as far as it was read
    digest: bytes  # SHA-256 of what was read
    whole: bool  # the body was read to its end

    def values(self, name: str) -> list[str]:
        """Return what each header of a name says; names are compared in lower case."""
        wanted = name.encode()
        return [value.decode("utf-8", "surrogateescape") for each, value in self.fields if each.lower() == wanted]


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


async def read_whole(content: StreamReader, most: int) -> bytes | None:
    """Return a body that came in however many pieces, None if it is longer than `most`."""
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def headers_text(fields: tuple[Header, ...]) -> str:
    """Return the first headers as JSON; latin-1, because any byte may stand in them."""
    return _few_headers(fields) if len(fields) <= FEW_HEADERS else _headers(fields)


def _headers(fields: tuple[Header, ...]) -> str:
    kept, size = [], 0
    for name, value in fields:
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

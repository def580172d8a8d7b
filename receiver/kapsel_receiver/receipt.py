"""The 202, in one write: the answer that every accepted webhook gets, and so the one that must cost least.

`app` returns it where aiohttp expects a response. A general response builds a header dictionary, completes it and
serialises it again for every request; of these bytes only two ids and the date ever change.
"""

from uuid import UUID

from aiohttp import HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from kapsel_receiver.problems import SERVER


def accepted(
    request: web.BaseRequest, event_id: UUID, *, duplicate: bool, correlation_id: str, stays: bool, empty: bool = False
) -> web.StreamResponse:
    """Say that the event is durable; a duplicate hears exactly what the first one heard, but for one header.

    `stays` says whether the connection stays open; `empty` is for providers that make something of a body.
    """
    if empty:
        bare = {"Server": SERVER, "X-Correlation-Id": correlation_id, "X-Event-Id": str(event_id)}
        return web.Response(status=204, headers=bare | ({"Idempotent-Replayed": "true"} if duplicate else {}))
    if request.version == HttpVersion11 and stays:
        return _Receipt(request, event_id, duplicate, correlation_id)
    headers = {"Content-Type": "application/json", "Server": SERVER, "X-Correlation-Id": correlation_id}
    if duplicate:
        headers["Idempotent-Replayed"] = "true"
    return web.Response(status=202, body=b'{"id": "%s"}' % str(event_id).encode(), headers=headers)


class _Receipt(web.StreamResponse):
    """A 202 on a connection that stays open, written without going through the stages of a response."""

    def __init__(self, request: web.BaseRequest, event_id: UUID, duplicate: bool, correlation_id: str) -> None:
        # Nothing of the base is set up: aiohttp asks a response for nothing but the three members below.
        replayed = "Idempotent-Replayed: true\r\n" if duplicate else ""
        self._request = request
        self._message = (
            "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 46\r\n"
            f"X-Correlation-Id: {correlation_id}\r\n{replayed}Date: {rfc822_formatted_time()}\r\n\r\n"
            f'{{"id": "{event_id}"}}'
        ).encode("ascii")

    @property
    def keep_alive(self) -> bool:
        """Only such connections get a receipt."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Prepare nothing: the message is whole."""

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - the signature is aiohttp's
        """Write the message, and wait if the client does not read."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        transport.write(self._message)
        await self._request.writer.drain()

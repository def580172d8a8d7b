"""Reading a body: never more than the endpoint allows, never longer than the deadline, the bytes as they came.

`app` calls this. Nothing is decompressed, because the bytes that were signed are the bytes that are stored.
"""

import asyncio
from collections.abc import Mapping

from aiohttp import ClientPayloadError, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import RequestPayloadError

from kapsel_receiver.problems import Refusal


def declared_too_large(headers: Mapping[str, str], limit: int) -> Refusal | None:
    """Refuse by Content-Length, before a byte of the body is read."""
    length = headers.get("Content-Length")
    return _too_large(limit) if length is not None and int(length) > limit else None


class Budget:
    """How many bytes of unfinished bodies this process may hold: many slow large bodies must not fill the memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    async def read(self, request: web.BaseRequest, limit: int, deadline: float) -> bytes | Refusal:
        """Return the whole body, waiting for it until `deadline` seconds from now."""
        content = request.content
        if content.is_eof() and content.exception() is None:
            body = content.read_nowait()
            return body if len(body) <= limit else _too_large(limit)
        if "Expect" in request.headers:
            refusal = await _expect(request)
            if refusal is not None:
                return refusal
        try:
            async with asyncio.timeout(deadline):
                return await self._collect(content, limit)
        except TimeoutError:
            return Refusal(code="body_timeout", detail=f"the body did not end within {deadline:.0f} s", close=True)
        except (RequestPayloadError, BadHttpMessage, ClientPayloadError) as error:
            return Refusal(code="body_malformed", detail=str(error) or "the body is broken", close=True)
        except (ConnectionError, RuntimeError):  # aiohttp says "Connection closed." by RuntimeError
            return Refusal(code="body_incomplete", detail="the connection was closed", close=True)

    async def _collect(self, content: StreamReader, limit: int) -> bytes | Refusal:
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await content.readany():
                chunks.append(chunk)
                size += len(chunk)
                self._held += len(chunk)
                if size > limit:
                    return _too_large(limit)
                if self._held > self._limit:
                    return Refusal(code="overloaded", detail="too many large bodies at once", retry_after=1, close=True)
            return b"".join(chunks)
        finally:
            self._held -= size


async def _expect(request: web.BaseRequest) -> Refusal | None:
    """Answer `Expect: 100-continue`, which senders of large bodies wait for."""
    if request.headers["Expect"].lower() != "100-continue":
        return Refusal(code="expectation_failed", detail="only 100-continue can be expected", close=True)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
    return None


def _too_large(limit: int) -> Refusal:
    return Refusal(code="body_too_large", detail=f"the endpoint takes bodies of up to {limit} bytes", close=True)

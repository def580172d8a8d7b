"""Asks a process on this machine over HTTP whether it is ready: the few bytes of HTTP/1.0 that this takes.

Called by `up` many times a second while processes start, where a whole HTTP client would be the slowest part.
"""

import asyncio
from typing import Final

SECONDS: Final = 2.0


async def is_ready(host: str, port: int) -> bool:
    """Return whether GET /health/ready answers 200; False while nobody answers at all."""
    try:
        async with asyncio.timeout(SECONDS):
            return b" 200 " in await _status_line(host, port)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False


async def _status_line(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return await reader.readuntil(b"\r\n")
    finally:
        writer.close()

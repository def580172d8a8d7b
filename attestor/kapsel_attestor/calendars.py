"""OpenTimestamps calendar servers as their client sees them: give one a digest, ask it what has become of that.

`anchors` calls. What a server does wrong is a value: nobody but the anchor waits for it. Whom to ask is the caller's to
decide, and redirects are not followed, so no answer leads anywhere else. One that is too long or too late is none.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import aiohttp

from kapsel_verifier import ots_paths
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.ots_paths import Path

MOST_BYTES: Final = 10_000  # of an answer, as the stock client has it
_HEADERS: Final = {
    "Accept": "application/vnd.opentimestamps.v1",
    "Accept-Encoding": "identity",
    "User-Agent": "kapsel-attestor",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What follows the message that the calendar was asked about."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class NotYet:
    """The calendar has nothing to tell about the message."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The calendar did not answer as it must."""

    reason: str


def session() -> aiohttp.ClientSession:
    """Return the client for all calendars; use it with `async with`."""
    # Nothing of one answer is to change the next request, and no variable of the environment where it goes.
    return aiohttp.ClientSession(headers=_HEADERS, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


async def submit(client: aiohttp.ClientSession, url: str, message: bytes, timeout: timedelta) -> Told | Failed:
    """Ask the calendar at `url` to date a message of at most 64 bytes."""
    answer = await _exchange(client, "POST", f"{url}/digest", message, timeout)
    if isinstance(answer, NotYet):
        return Failed("has no /digest: it is no calendar server")
    return _read(answer, message)


async def ask(client: aiohttp.ClientSession, url: str, message: bytes, timeout: timedelta) -> Told | NotYet | Failed:
    """Ask the calendar at `url` what has become of a message that it has promised to date."""
    answer = await _exchange(client, "GET", f"{url}/timestamp/{message.hex()}", None, timeout)
    return answer if isinstance(answer, NotYet) else _read(answer, message)


async def _exchange(
    client: aiohttp.ClientSession, method: str, url: str, body: bytes | None, timeout: timedelta
) -> bytes | NotYet | Failed:
    try:
        async with (
            asyncio.timeout(timeout.total_seconds()),
            client.request(method, url, data=body, allow_redirects=False) as response,
        ):
            if response.status == 404:
                return NotYet()
            if response.status != 200:
                return Failed(f"answers with status {response.status}")
            received = bytearray()
            async for chunk in response.content.iter_chunked(MOST_BYTES):
                received += chunk
                if len(received) > MOST_BYTES:
                    return Failed(f"answers with more than {MOST_BYTES} bytes")
            return bytes(received)
    except TimeoutError:
        return Failed(f"does not answer within {timeout.total_seconds():g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Failed(f"cannot be asked: {str(error) or type(error).__name__}")


def _read(answer: bytes | Failed, message: bytes) -> Told | Failed:
    if isinstance(answer, Failed):
        return answer
    try:
        return Told(ots_paths.parse(answer, len(message)))
    except VerificationError as error:
        return Failed(f"answers with what is no timestamp: {error}")

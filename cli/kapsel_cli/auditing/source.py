"""Fetches what a log and its witnesses show, from servers that may lie, hang, or send without end.

Every answer has a limit and a deadline; what does not come is asked for again a few times, for an audit takes minutes
and networks hiccup, and more often if the server says when. Redirects are not followed: who is audited must answer.
"""

import asyncio
import time
from collections.abc import Mapping
from hashlib import sha256
from random import Random
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from kapsel_cli.auditing.errors import SourceError
from kapsel_runtime.backoff import delays
from kapsel_verifier import keys, note, tiles
from kapsel_verifier.tiles import Tile

TRIES: Final = 4
PATIENCE: Final = 120.0  # seconds that a server may put off one answer
TIMEOUT: Final = aiohttp.ClientTimeout(total=60, connect=10, sock_read=20)  # seconds, for one answer
_WAIT: Final = (0.2, 2.0)  # seconds between tries
_LEAST: Final = 1.0  # second between two tries, whatever the server says
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Source:
    """One log, at the prefix of its tlog-tiles API."""

    def __init__(self, url: str, session: aiohttp.ClientSession, token: str | None = None) -> None:
        """Read the log at a prefix; the token is for its server alone."""
        self.url = url.rstrip("/")
        self._session = session
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def checkpoint(self) -> str:
        """Return the newest signed note, unchecked."""
        return _text(await self._get(f"{self.url}/checkpoint", note.MAX_NOTE_SIZE), "the checkpoint")

    async def tile(self, tile: Tile, hashes: int) -> bytes:
        """Return the bytes of a tile with so many hashes, unchecked."""
        return await self._get(f"{self.url}/{tiles.path(tile, hashes)}", tiles.TILE_BYTES)

    async def bundle(self, number: int, entries: int) -> bytes:
        """Return the bytes of a bundle with so many leaves, unchecked."""
        return await self._get(f"{self.url}/{tiles.entries_path(number, entries)}", tiles.MAX_BUNDLE_SIZE)

    async def key_set(self) -> bytes | None:
        """Return the key set that the log's operator publishes, or None: it is announced, not to be trusted."""
        parts = urlsplit(self.url)
        for prefix in dict.fromkeys((self.url, f"{parts.scheme}://{parts.netloc}")):
            found = await self._look(f"{prefix}/.well-known/kapsel/keys.json", keys.MAX_KEY_SET_SIZE, self._headers)
            if found is not None:
                return found
        return None

    async def view(self, witness_url: str, origin: str) -> str | None:
        """Return the newest head of a log that a witness has cosigned, unchecked; None if it has seen none."""
        address = f"{witness_url.rstrip('/')}/{sha256(origin.encode()).hexdigest()}/checkpoint"
        body = await self._look(address, note.MAX_NOTE_SIZE, {})
        return None if body is None else _text(body, "the witness's view")

    async def _get(self, address: str, limit: int) -> bytes:
        """Return a body; raises SourceError."""
        body = await self._look(address, limit, self._headers)
        if body is None:
            raise SourceError(f"{address} cannot be read: it answers 404")
        return body

    async def _look(self, address: str, limit: int, headers: Mapping[str, str]) -> bytes | None:
        """Return a body, None if there is no such thing; raises SourceError."""
        reason, failures = "", 0
        waits = delays(*_WAIT, Random())  # noqa: S311 - jitter, not a secret
        until = time.monotonic() + PATIENCE
        while failures < TRIES:
            if failures:
                await asyncio.sleep(next(waits))
            failures += 1
            try:
                async with self._session.get(address, headers=headers, allow_redirects=False) as answer:
                    if answer.status == 404:
                        return None
                    if answer.status == 200:
                        return await _read(answer, limit, address)
                    reason = f"it answers {answer.status}"
                    if answer.status not in _PASSING:
                        break
                    wait = _put_off(answer)
                if wait is not None and time.monotonic() + wait < until:
                    await asyncio.sleep(wait)
                    failures = 0
            except TimeoutError:
                reason = "it does not answer in time"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                reason = str(error) or type(error).__name__
        raise SourceError(f"{address} cannot be read: {reason}")


class Opened:
    """An HTTP session for audits."""

    def __init__(self, connections: int) -> None:
        self._connections = connections

    async def __aenter__(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=2 * self._connections)
        # Not packed: a few bytes could unpack to more than any limit before it is seen.
        headers = {"User-Agent": "kapsel-audit", "Accept-Encoding": "identity"}
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=TIMEOUT,
            headers=headers,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


def _put_off(answer: aiohttp.ClientResponse) -> float | None:
    """Return the seconds after which the server asks to be asked again, if it says so."""
    text = answer.headers.get("Retry-After", "")
    return max(float(text), _LEAST) if text.isascii() and text.isdecimal() and len(text) < 4 else None


async def _read(answer: aiohttp.ClientResponse, limit: int, address: str) -> bytes:
    parts, size = [], 0
    while chunk := await answer.content.read(65_536):
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise SourceError(f"{address} sends more than {limit} bytes")
    return b"".join(parts)


def _text(body: bytes, what: str) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise SourceError(f"{what} is not UTF-8") from None

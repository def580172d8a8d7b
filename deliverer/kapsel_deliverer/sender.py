"""Makes one try: one HTTP request over a shared client; whatever comes of it is a value.

The worker calls `send` with a `Target`, which holds what is the same for every try at one destination. Redirects are
never followed, bodies never decompressed. The status decides the outcome: what follows it (a body that never ends,
hangs or breaks off) is evidence, kept as far as it was read. Whether to try again is decided in `retry`.
"""

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from kapsel_deliverer import signing
from kapsel_deliverer.addresses import GuardedResolver
from kapsel_deliverer.errors import AddressDeniedError
from kapsel_deliverer.outcome import Delivered, Denied, Outcome, Refused, TimedOut, Unreachable, Unsent
from kapsel_deliverer.retry import retry_after
from kapsel_deliverer.targets import Target
from kapsel_store.rows import Claimed, RelayRow

IDLE_TIMEOUT: Final = 4.0  # seconds a connection is kept unused: below the 5 s after which many servers close it
DNS_CACHE_TTL: Final = 30  # seconds
BODY_KEPT: Final = 16 * 1024  # bytes of a response that are stored
BODY_READ: Final = 256 * 1024  # bytes of a response that are read and hashed; then the connection is closed
HEADERS_KEPT: Final = 8 * 1024  # bytes of response headers that are stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back, bounded."""

    status: int
    headers: str  # JSON: a list of [name, value] pairs
    body: bytes  # the first BODY_KEPT bytes
    size: int  # as far as it was read
    digest: bytes  # SHA-256 of what was read


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try and all that is known of it."""

    outcome: Outcome
    started_at: datetime
    duration: timedelta
    signature_digest: bytes | None = None  # None if nothing was signed
    response: Response | None = None


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and those of the file."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class _Client:
    """A session that is closed when it is retired and its last request has ended."""

    def __init__(self, resolver: AbstractResolver, relay: RelayRow, context: ssl.SSLContext) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=GuardedResolver(resolver, relay),
                ttl_dns_cache=DNS_CACHE_TTL,
                keepalive_timeout=IDLE_TIMEOUT,
                limit=0,  # the lanes bound what is under way
                ssl=context,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            auto_decompress=False,
            raise_for_status=False,
            trust_env=False,
        )
        self.users = 0
        self.retired = asyncio.Event()
        self.unused = asyncio.Event()
        self.unused.set()


class Sender:
    """One client for each egress policy, because pooled connections were judged by the policy they were made under."""

    def __init__(self, resolver: AbstractResolver, context: ssl.SSLContext) -> None:
        self._resolver = resolver
        self._context = context
        self._relay = RelayRow()
        self._client = _Client(resolver, self._relay, context)
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._retire(self._client)
        await asyncio.gather(*self._closing)
        await self._resolver.close()

    def use(self, relay: RelayRow) -> None:
        """Call by this egress policy from now on."""
        if relay != self._relay:
            self._retire(self._client)
            self._relay = relay
            self._client = _Client(self._resolver, relay, self._context)

    def _retire(self, client: _Client) -> None:
        task = asyncio.ensure_future(_close(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def send(self, target: Target, delivery: Claimed, now: datetime, checkpoint: str | None) -> Try:
        """Make one try at `now`, which is signed as its time."""
        started = time.perf_counter()
        event_id, timestamp = str(delivery.event_id), int(now.timestamp())
        if isinstance(target.verdict, Denied):
            return Try(outcome=target.verdict, started_at=now, duration=timedelta(0))
        signature = target.signer.sign(event_id, timestamp, delivery.body, now)
        if signature is None:
            return Try(outcome=Unsent(reason="no_signing_key"), started_at=now, duration=timedelta(0))
        headers = {
            **target.headers,
            "content-type": delivery.content_type,
            signing.ID: event_id,
            signing.TIMESTAMP: str(timestamp),
            signing.SIGNATURE: signature,
            signing.ATTEMPT: str(delivery.number),
        }
        if delivery.correlation_id is not None:
            headers[signing.CORRELATION_ID] = delivery.correlation_id
        if checkpoint is not None:
            headers[signing.CHECKPOINT] = checkpoint
        outcome, response = await self._post(target.verdict.url, headers, delivery.body, target.timeout)
        return Try(
            outcome=outcome,
            started_at=now,
            duration=timedelta(seconds=time.perf_counter() - started),
            signature_digest=signing.signature_digest(headers),
            response=response,
        )

    async def _post(
        self, url: URL, headers: Mapping[str, str], body: bytes, timeout: aiohttp.ClientTimeout
    ) -> tuple[Outcome, Response | None]:
        client = self._client
        client.users += 1
        client.unused.clear()
        try:
            answer = await client.session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False)
            response = await _read(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _failure(error), None
        finally:
            client.users -= 1
            if not client.users:
                client.unused.set()
        return _verdict(response, answer.headers.get("retry-after")), response


async def _close(client: _Client) -> None:
    await client.unused.wait()
    await client.session.close()


async def _read(answer: aiohttp.ClientResponse) -> Response:
    """Read a response as far as it is wanted, and free its connection."""
    hashed, kept, size, whole = hashlib.sha256(), b"", 0, False
    try:
        while size < BODY_READ:
            chunk = await answer.content.readany()
            if not chunk:
                whole = True
                break
            hashed.update(chunk)
            size += len(chunk)
            if len(kept) < BODY_KEPT:
                kept += chunk[: BODY_KEPT - len(kept)]
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass  # the status has been said; the body is what there is of it
    finally:
        # A connection with an unread rest cannot be used again.
        answer.release() if whole else answer.close()
    return Response(
        status=answer.status, headers=_headers(answer.raw_headers), body=kept, size=size, digest=hashed.digest()
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


def _verdict(response: Response, wait: str | None) -> Outcome:
    if 200 <= response.status < 300:
        return Delivered(status=response.status)
    if not 100 <= response.status <= 999:
        return Unreachable(reason="bad_response")
    return Refused(status=response.status, retry_after=retry_after(wait, datetime.now(UTC)))


def _failure(error: Exception) -> Outcome:
    """Map what the client raises to an outcome: the one place that knows its exceptions."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return TimedOut(phase="connect")
        case TimeoutError():
            return TimedOut(phase="response")
        case aiohttp.ClientConnectorCertificateError():
            return Unreachable(reason="certificate")
        case aiohttp.ClientSSLError():
            return Unreachable(reason="tls")
        case aiohttp.ClientConnectorDNSError(os_error=AddressDeniedError(denied=denied)):
            return denied
        case aiohttp.ClientConnectorDNSError():
            return Unreachable(reason="dns")
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return Unreachable(reason="connect_refused")
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError()):
            return Unreachable(reason="reset")
        case aiohttp.ClientConnectorError():
            return Unreachable(reason="connect_failed")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return Unreachable(reason="bad_response")
        case aiohttp.InvalidURL():
            return Denied(reason="url_invalid", detail=str(error))
        case _:
            return Unreachable(reason="reset")

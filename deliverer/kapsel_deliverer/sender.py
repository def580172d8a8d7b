"""Makes one try: one HTTP request over pooled connections; whatever comes of it is a value.

The worker calls `send` with a `Target`, which holds what is the same for every try at one destination. Redirects are
never followed, bodies never decompressed. The status decides the outcome; what follows it (a body that never ends,
hangs or breaks off) is evidence, kept as far as it was read. Whether to try again is decided in `retry`.
"""

import asyncio
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http import HttpProcessingError

from kapsel_deliverer import signing
from kapsel_deliverer.addresses import GuardedResolver
from kapsel_deliverer.errors import AddressDeniedError
from kapsel_deliverer.exchange import Exchange, Response, header_lines
from kapsel_deliverer.outcome import Delivered, Denied, Outcome, Refused, TimedOut, Unreachable, Unsent
from kapsel_deliverer.retry import retry_after
from kapsel_deliverer.targets import Target
from kapsel_store.rows import Claimed, RelayRow

IDLE_TIMEOUT: Final = 4.0  # seconds a connection is kept unused: below the 5 s after which many servers close it
DNS_CACHE_TTL: Final = 30  # seconds


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


class _Pool:
    """Connections under one egress policy; closed when it is retired and its last request has ended."""

    def __init__(self, resolver: AbstractResolver, relay: RelayRow, context: ssl.SSLContext) -> None:
        self.connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(resolver, relay),
            ttl_dns_cache=DNS_CACHE_TTL,
            keepalive_timeout=IDLE_TIMEOUT,
            limit=0,  # the lanes bound what is under way
            ssl=context,
        )
        self.users = 0
        self.unused = asyncio.Event()
        self.unused.set()

    async def close(self) -> None:
        await self.unused.wait()
        await self.connector.close()


class Sender:
    """Has one pool for each egress policy: a pooled connection was judged by the policy it was made under."""

    def __init__(self, resolver: AbstractResolver, context: ssl.SSLContext) -> None:
        self._resolver = resolver
        self._context = context
        self._relay = RelayRow()
        self._pool = _Pool(resolver, self._relay, context)
        self._retired: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._retire()
        await asyncio.gather(*self._retired)
        await self._resolver.close()

    def use(self, relay: RelayRow) -> None:
        """Call by this egress policy from now on."""
        if relay != self._relay:
            self._retire()
            self._relay = relay
            self._pool = _Pool(self._resolver, relay, self._context)

    def _retire(self) -> None:
        task = asyncio.ensure_future(self._pool.close())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

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
            "content-type": delivery.content_type,
            "content-length": str(len(delivery.body)),
            signing.ID: event_id,
            signing.TIMESTAMP: str(timestamp),
            signing.SIGNATURE: signature,
            signing.ATTEMPT: str(delivery.number),
        }
        if delivery.correlation_id is not None:
            headers[signing.CORRELATION_ID] = delivery.correlation_id
        if checkpoint is not None:
            headers[signing.CHECKPOINT] = checkpoint
        head = target.head + header_lines(headers) + b"\r\n"
        result = await self._post(target.request, head, delivery.body, target.timeout)
        outcome = _verdict(result) if isinstance(result, Response) else result
        # What has no HTTP status is no HTTP response: there is none to keep.
        response = result if isinstance(result, Response) and not isinstance(outcome, Unreachable) else None
        return Try(
            outcome=outcome,
            started_at=now,
            duration=timedelta(seconds=time.perf_counter() - started),
            signature_digest=signing.signature_digest(headers),
            response=response,
        )

    async def _post(
        self, request: ClientRequest, head: bytes, body: bytes, timeout: aiohttp.ClientTimeout
    ) -> Response | Outcome:
        pool = self._pool
        pool.users += 1
        pool.unused.clear()
        exchange = Exchange(pool.connector, timeout)
        try:
            return await exchange.post(request, head, body)
        except TimeoutError:
            return TimedOut(phase="response" if exchange.connected else "connect")
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            return TimedOut(phase="response") if exchange.expired else _failure(error)
        finally:
            pool.users -= 1
            if not pool.users:
                pool.unused.set()


def _verdict(response: Response) -> Outcome:
    if 200 <= response.status < 300:
        return Delivered(status=response.status)
    if not 100 <= response.status <= 999:
        return Unreachable(reason="bad_response")
    return Refused(status=response.status, retry_after=retry_after(response.retry_after, datetime.now(UTC)))


def _failure(error: Exception) -> Outcome:
    """Map what the client raises to an outcome: the one place that knows its exceptions."""
    match error:
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
        case HttpProcessingError() | aiohttp.ClientPayloadError():
            return Unreachable(reason="bad_response")
        case _:
            return Unreachable(reason="reset")

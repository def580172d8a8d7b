"""Makes one try: one HTTP request over pooled connections; whatever comes of it is a value.

The worker calls `send` with a `Target`, which holds what is the same for every try at one destination. Redirects are
never followed, bodies never decompressed. The status decides the outcome; what follows it (a body that never ends,
hangs or breaks off) is evidence, kept as far as it was read. Whether to try again is decided in `retry`.
"""

import asyncio
import ssl
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_reqrep import ClientRequest

from kapsel_deliverer import acknowledging, batches, signing
from kapsel_deliverer.acknowledging import Asked, Directory, Judged
from kapsel_deliverer.batches import Item
from kapsel_deliverer.directories import FETCH_TIMEOUT, Directories
from kapsel_deliverer.errors import (
    AddressDeniedError,
    BadResponseError,
    DisconnectedError,
    NoAnswerError,
    ProxyError,
)
from kapsel_deliverer.exchange import BODY_KEPT, Response, header_lines, redacted
from kapsel_deliverer.oauth2 import FETCH_TIMEOUT as TOKEN_TIMEOUT
from kapsel_deliverer.oauth2 import Client, Tokens
from kapsel_deliverer.outcome import (
    Delivered,
    ItemFailed,
    ItemReason,
    Outcome,
    Refused,
    TimedOut,
    Unacknowledged,
    UnacknowledgedReason,
    Unreachable,
    Unsent,
)
from kapsel_deliverer.pool import Pool
from kapsel_deliverer.proxy import Proxy, connector
from kapsel_deliverer.retry import retry_after
from kapsel_deliverer.targets import Target
from kapsel_egress.verdicts import Denied
from kapsel_store import ids
from kapsel_store.ids import milliseconds
from kapsel_store.rows import LONGEST_DETAIL, Acknowledged, Batch, Claimed, RelayRow
from kapsel_verifier import acknowledgement

_FETCH: Final = aiohttp.ClientTimeout(total=FETCH_TIMEOUT, connect=FETCH_TIMEOUT)
_TOKEN: Final = aiohttp.ClientTimeout(total=TOKEN_TIMEOUT, connect=FETCH_TIMEOUT)
_UNACKNOWLEDGED: Final[Mapping[Acknowledged, UnacknowledgedReason]] = {
    "missing": "acknowledgement_missing",
    "invalid": "acknowledgement_invalid",
    "no_key": "acknowledgement_no_key",
}


class Try(NamedTuple):
    """One try and all that is known of it."""

    outcome: Outcome
    started_at: datetime
    duration: timedelta
    detail: str | None = None  # what exactly was wrong, where the reason alone does not tell
    signature_digest: bytes | None = None  # None if nothing was signed
    sent_hash: bytes | None = None  # SHA-256 of the body as sent, if a transform made it
    response: Response | None = None
    together: int = 1  # deliveries in the request
    judged: Judged | None = None  # None if no acknowledgement is declared, or the destination did not take it


class Part(NamedTuple):
    """One delivery of a batch as it is sent."""

    delivery: Claimed
    made: Mapping[str, str]  # headers of this event alone


class Packed(NamedTuple):
    """Deliveries that go in one request, as it is sent."""

    signed_at: datetime
    headers: Mapping[str, str]
    body: bytes
    items: Sequence[Item]  # without their text, which is in the body


class Sender:
    """Has one pool for each egress policy: a pooled connection was judged by the policy it was made under."""

    def __init__(self, resolver: AbstractResolver, context: ssl.SSLContext) -> None:
        self._resolver = resolver
        self._context = context
        self._policy: tuple[RelayRow, Proxy | None] = (RelayRow(), None)
        self._pool = self._made()
        self._retired: set[asyncio.Task[None]] = set()
        self._directories = Directories()
        self._tokens = Tokens()

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._retire()
        await asyncio.gather(*self._retired)
        await self._resolver.close()

    def use(
        self,
        relay: RelayRow,
        directories: Collection[str],
        *,
        proxy: Proxy | None = None,
        clients: Collection[Client] = (),
    ) -> None:
        """Call by this egress policy from now on; remember the keys of these directories, and these clients' tokens."""
        self._directories.keep(directories)
        self._tokens.keep(clients)
        if (relay, proxy) != self._policy:
            self._retire()
            self._policy = (relay, proxy)
            self._pool = self._made()

    def _made(self) -> Pool:
        # No limit here: the lanes bound what is under way.
        return Pool(connector(self._resolver, *self._policy, limit=0, ssl=self._context))

    def _retire(self) -> None:
        task = asyncio.ensure_future(self._pool.close())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def send(
        self,
        target: Target,
        delivery: Claimed,
        now: datetime,
        checkpoint: str | None,
        made: Mapping[str, str] = MappingProxyType({}),
    ) -> Try:
        """Make one try at `now`, which is signed as its time; `made` are headers of this event alone."""
        started = time.perf_counter()
        if isinstance(target.verdict, Denied):
            return Try(outcome=target.verdict, started_at=now, duration=timedelta(0))
        headers = _headers(target, delivery, now, made)
        if headers is None:
            return Try(outcome=Unsent(reason="no_signing_key"), started_at=now, duration=timedelta(0))
        if target.asked is not None:
            headers[acknowledging.CONTENT_DIGEST] = acknowledgement.digest_field(delivery.body_hash)
        outcome, response = await self._post(target, headers, delivery.body, checkpoint)
        duration = timedelta(seconds=time.perf_counter() - started)
        if isinstance(outcome, Unsent):
            return Try(outcome=outcome, started_at=now, duration=duration)
        judged = None
        if response is not None and isinstance(outcome, Delivered) and target.asked is not None:
            judged = await self._judge(target.asked, delivery, now, response)
            if target.asked.required and judged.result != "acknowledged":
                outcome = Unacknowledged(status=response.status, reason=_UNACKNOWLEDGED[judged.result])
        return Try(
            outcome=outcome,
            started_at=now,
            duration=duration,
            detail=outcome.detail if isinstance(outcome, Unreachable) else None,
            signature_digest=signing.signature_digest(headers),
            response=response,
            judged=judged,
        )

    async def pack(
        self, target: Target, batch: Batch, parts: Iterable[Part], now: datetime
    ) -> list[Packed] | Denied | Unsent:
        """Return as few requests as hold these in their order, each signed at `now`; or why nothing can be sent."""
        if isinstance(target.verdict, Denied):
            return target.verdict
        packed = []
        for items in batches.packed(_items(target, parts, now), batch.max_bytes):
            packed.append(_packed(target, items, now))
            await asyncio.sleep(0)  # writing many large ones would leave no time for anything else
        return packed or Unsent(reason="no_signing_key")

    async def send_packed(self, target: Target, packed: Packed, checkpoint: str | None) -> list[Try]:
        """Make one try of each delivery in a request; return them in its order."""
        started, now, items = time.perf_counter(), packed.signed_at, packed.items
        outcome, response = await self._post(target, dict(packed.headers), packed.body, checkpoint)
        duration = timedelta(seconds=time.perf_counter() - started)
        if isinstance(outcome, Unsent):
            return [Try(outcome=outcome, started_at=now, duration=duration) for _ in items]
        where = f"in a batch of {len(items)}, webhook-id {packed.headers[signing.ID]}"
        exact = outcome.detail if isinstance(outcome, Unreachable) else None
        one = Try(
            outcome=outcome,
            started_at=now,
            duration=duration,
            detail=where if exact is None else f"{exact}; {where}",
            response=response,
            together=len(items),
        )
        failed = set[str]() if response is None else batches.failed(response, {each.event_id for each in items})
        tries = []
        for each in items:
            own = one.outcome
            if isinstance(own, Delivered) and (failed is None or each.event_id in failed):
                reason: ItemReason = "batch_answer_invalid" if failed is None else "item_failed"
                own = ItemFailed(status=own.status, reason=reason)
            tries.append(one._replace(outcome=own, signature_digest=each.signature_digest))
        return tries

    async def _post(
        self, target: Target, headers: dict[str, str], body: bytes, checkpoint: str | None
    ) -> tuple[Outcome, Response | None]:
        """Send these headers, and what else each request has; return the response without what must not be stored."""
        if not target.is_ready:
            return Unsent(reason="no_credential"), None
        token = None if target.client is None else await self._tokens.token(target.client, self._ask)
        if isinstance(token, str):
            return Unsent(reason=token), None
        headers["content-length"] = str(len(body))
        if checkpoint is not None:
            headers[signing.CHECKPOINT] = checkpoint
        if token is not None:
            headers["authorization"] = f"Bearer {token.value}"
        head = target.head + header_lines(headers) + b"\r\n"
        result = await self._request(target.request, head, body, target.timeout)
        outcome = _verdict(result) if isinstance(result, Response) else result
        # What has no HTTP status is no HTTP response: there is none to keep.
        response = result if isinstance(result, Response) and not isinstance(outcome, Unreachable) else None
        if response is not None and token is not None and target.client is not None:
            replaced = self._tokens.answered(target.client, token, response.status)
            if replaced and isinstance(outcome, Refused):
                outcome = replace(outcome, token_replaced=True)
        if response is not None and (target.secrets or token is not None):
            response = redacted(response, (*target.secrets, *((token.value.encode(),) if token is not None else ())))
        return outcome, response

    async def _judge(self, asked: Asked, delivery: Claimed, now: datetime, response: Response) -> Judged:
        """Look for the destination's signature over this try; its keys are fetched if they are not known."""
        exchange = acknowledgement.Exchange(
            status=response.status,
            response_digest=response.digest,
            webhook_id=str(delivery.event_id),
            payload_hash=delivery.body_hash,
            timestamp=milliseconds(now),
        )
        fields = {name: ", ".join(response.values(name)) for name in acknowledging.FIELDS}
        offers = acknowledging.offered(fields, exchange, whole=response.whole, tolerance_s=asked.tolerance_s)
        if isinstance(offers, Judged):
            return offers
        if asked.directory is None:
            return acknowledging.judge(offers, asked.keys) or acknowledging.UNKNOWN_KEY
        for anew in (False, True):
            keys = await self._directories.keys(asked.directory, self._fetch, anew=anew)
            if isinstance(keys, str):
                return Judged(result="no_key", detail=f"no keys from {asked.directory.url}: {keys}")
            if judged := acknowledging.judge(offers, keys):
                return judged
        return acknowledging.UNKNOWN_KEY

    async def _ask(self, client: Client) -> Response | Outcome:
        """Ask for an access token as deliveries are sent: by the same resolver and policy, without redirects."""
        return await self._request(client.request, client.head, client.form, _TOKEN)

    async def _fetch(self, directory: Directory) -> bytes | str:
        """Fetch a key directory as deliveries are sent: by the same resolver and policy, without redirects."""
        result = await self._request(directory.request, directory.head, b"", _FETCH)
        if not isinstance(result, Response):
            return result.reason
        if result.status != 200:
            return f"status_{result.status}"
        return result.body if result.whole and result.size <= BODY_KEPT else f"it is larger than {BODY_KEPT} bytes"

    async def _request(
        self, request: ClientRequest, head: bytes, body: bytes, timeout: aiohttp.ClientTimeout
    ) -> Response | Outcome:
        try:
            return await self._pool.request(request, head, body, timeout)
        except NoAnswerError:
            return TimedOut(phase="response")
        except TimeoutError:
            return TimedOut(phase="connect")
        except BadResponseError:
            return Unreachable(reason="bad_response")
        except DisconnectedError:
            return Unreachable(reason="reset")
        except (aiohttp.ClientError, OSError) as error:
            return _failure(error)


def _headers(target: Target, delivery: Claimed, now: datetime, made: Mapping[str, str]) -> dict[str, str] | None:
    """Return what says and signs what is delivered; None if there is no key to sign with."""
    event_id, timestamp = str(delivery.event_id), int(now.timestamp())
    signature = target.signer.sign(event_id, timestamp, delivery.body, now)
    if signature is None:
        return None
    headers = {
        **made,
        "content-type": delivery.content_type,
        signing.ID: event_id,
        signing.TIMESTAMP: str(timestamp),
        signing.SIGNATURE: signature,
        signing.ATTEMPT: str(delivery.number),
    }
    if delivery.correlation_id is not None:
        headers[signing.CORRELATION_ID] = delivery.correlation_id
    return headers


def _items(target: Target, parts: Iterable[Part], now: datetime) -> Iterator[Item]:
    """Yield each delivery as it stands in a batch, when it is asked for; none if there is no key to sign with."""
    for part in parts:
        headers = _headers(target, part.delivery, now, part.made)
        if headers is None:
            return
        digest = signing.signature_digest(headers)
        yield batches.item(str(part.delivery.event_id), headers, part.delivery.body, digest)


def _packed(target: Target, items: Sequence[Item], now: datetime) -> Packed:
    """Return one request of these; it has an id and a signature of its own, by which it can be checked as a whole."""
    batch_id, timestamp, body = str(ids.new()), int(now.timestamp()), batches.body(items)
    headers = {
        "content-type": batches.CONTENT_TYPE,
        signing.ID: batch_id,
        signing.TIMESTAMP: str(timestamp),
        # There is one: what signed the items was live at the same time.
        signing.SIGNATURE: target.signer.sign(batch_id, timestamp, body, now) or "",
    }
    return Packed(now, headers, body, [each._replace(text=b"") for each in items])


def _verdict(response: Response) -> Outcome:
    if 200 <= response.status < 300:
        return Delivered(status=response.status)
    if not 100 <= response.status <= 999:
        return Unreachable(reason="bad_response")
    said = response.values("retry-after")
    return Refused(status=response.status, retry_after=retry_after(said[0] if said else None, datetime.now(UTC)))


def _failure(error: Exception) -> Outcome:
    """Map what the connector raises to an outcome: the one place that knows its exceptions."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as wrong):
            return Unreachable(reason="certificate", detail=_said(wrong.verify_message))
        case aiohttp.ClientConnectorCertificateError():
            return Unreachable(reason="certificate")
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError() as wrong):
            return Unreachable(reason="tls", detail=_said(wrong.reason))
        case aiohttp.ClientSSLError():
            return Unreachable(reason="tls")
        case aiohttp.ClientConnectorDNSError(os_error=AddressDeniedError(denied=denied)):
            return denied
        case aiohttp.ClientConnectorError(os_error=ProxyError(reason=reason)):
            return Unsent(reason=reason)
        case aiohttp.ClientConnectorDNSError(os_error=unresolved):
            return Unreachable(reason="dns", detail=_said(unresolved.strerror))
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return Unreachable(reason="connect_refused")
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError()):
            return Unreachable(reason="reset")
        case aiohttp.ClientConnectorError():
            return Unreachable(reason="connect_failed")
        case _:
            return Unreachable(reason="reset")


def _said(text: str | None) -> str | None:
    """Return what a library says of a failure as an attempt can keep it beside more; it names no address."""
    return text[: LONGEST_DETAIL // 2] if text else None

"""One request: find its endpoint, let its body come, prove the caller, store the event, answer.

The whole HTTP surface is `/ingest/...`, so routing is one dictionary look-up. Checks go from cheap to dear, and what
is refused is refused before its body is read where that is possible. A token of the rate limit is taken only from
callers who have proved themselves, so that a forger cannot use up the provider's share.
"""

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from json.encoder import encode_basestring_ascii as _quoted
from math import ceil
from typing import Final, NamedTuple

from kapsel_receiver import handshakes, idempotency, proofs, signatures, sns
from kapsel_receiver.answers import Answer, accepted, lines
from kapsel_receiver.certificates import Certificates
from kapsel_receiver.endpoints import Endpoint, Index
from kapsel_receiver.intake import UNAVAILABLE, Intake, Outcome
from kapsel_receiver.metrics import UNKNOWN, Metrics
from kapsel_receiver.ordering import Placing, Unplaced
from kapsel_receiver.problems import Refusal
from kapsel_receiver.problems import answer as problem
from kapsel_receiver.refusals import RefusalLog
from kapsel_receiver.request import Request
from kapsel_runtime import entropy
from kapsel_store import database, ids
from kapsel_store.rows import SECRET_HEADERS, Duplicate, KeyRow, NewDelivery, NewEvent

METHODS: Final = "GET, HEAD, POST"
SUSPENDED_RETRY: Final = 300  # seconds: suspension is a person's decision, and people are slow to change theirs
KEY_RETRY: Final = 30
READY_RETRY: Final = 2
CERTIFICATE_RETRY: Final = 10

_CORRELATION_HEADERS: Final = ("X-Correlation-Id", "X-Request-Id")
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)

logger = logging.getLogger(__name__)


class Visit(NamedTuple):
    """A request that was let in by its head, and whose body may come."""

    request: Request
    endpoint: Endpoint
    correlation_id: str
    started: float


Reply = Callable[[Answer], None]
Judge = Callable[[], Awaitable[Answer | Refusal | None]]


class App:
    """Answers the requests of one receiver process; nothing but answers leaves it."""

    def __init__(
        self,
        index: Index,
        intake: Intake,
        metrics: Metrics,
        certificates: Certificates,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._intake = intake
        self._metrics = metrics
        self._certificates = certificates
        self._placing = Placing(metrics)
        self._log = RefusalLog(monotonic)
        self._now = now
        self._monotonic = monotonic
        self._waiting: set[asyncio.Task[None]] = set()

    def admit(self, request: Request) -> Visit | Answer:
        """Look at the head of a request: answer what needs no body to be answered, or let its body come."""
        correlation_id = _correlation_id(request.headers)
        endpoint: Endpoint | None = None
        found: Answer | Refusal | None
        try:
            # The second look is for proxies that send absolute URLs, and for senders that escape what needs no escape.
            endpoint = self._index.at(request.raw_path) or self._index.at(request.url.path)
            if endpoint is None:
                found = self._unknown()
            elif request.method != "POST":
                found = self._look(request, endpoint, correlation_id)
            else:
                found = self._refuse_early(endpoint, request)
                if found is None:
                    return Visit(request, endpoint, correlation_id, self._monotonic())
        except Exception:  # noqa: BLE001 - the edge: a bug of ours must not cost the connection, nor go unseen
            found = _failed(correlation_id)
        if isinstance(found, Answer):
            return found
        return self._refused(UNKNOWN if endpoint is None else endpoint.label, found, correlation_id)

    def take(self, visit: Visit, body: bytes, reply: Reply) -> None:
        """Take the webhook whose body has come, and answer it once that is durable; `reply` is called once."""
        try:
            found = self._take(visit, body, reply)
        except Exception:  # noqa: BLE001 - the same edge
            found = _failed(visit.correlation_id)
        self._reply(visit, found, reply)

    def refuse(self, visit: Visit, refusal: Refusal) -> Answer:
        """Count and log a request whose body did not come as it should; return its answer."""
        return self._refused(visit.endpoint.label, refusal, visit.correlation_id)

    def refuse_connection(self, refusal: Refusal) -> Answer:
        """Count and log what never became a request; return its answer."""
        return self._refused(UNKNOWN, refusal, _new_correlation_id())

    async def finish(self) -> None:
        """Give up what still waits for something other than its commit: its connections are gone."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    def _refused(self, label: str, refusal: Refusal, correlation_id: str) -> Answer:
        self._metrics.count(label, refusal.code)
        self._log.write(label, refusal, correlation_id)
        return problem(refusal, correlation_id)

    def _reply(self, visit: Visit, found: Answer | Refusal | None, reply: Reply) -> None:
        """Answer at once; nothing at all if the answer comes later."""
        if found is not None:
            reply(self.refuse(visit, found) if isinstance(found, Refusal) else found)

    def _take(self, visit: Visit, body: bytes, reply: Reply) -> Answer | Refusal | None:
        """Judge a webhook and store it; None if the answer comes later."""
        endpoint, now = visit.endpoint, self._now()
        scheme = endpoint.row.verification.scheme
        if scheme in handshakes.ASKING:
            asked = handshakes.asked(scheme, visit.request.url.query)
            if asked is not None:
                return self._open_handshake(endpoint, asked, visit.correlation_id)
        if scheme == "sns" or endpoint.rate is not None:
            self._later(visit, partial(self._take_slowly, visit, body, now, reply), reply)
            return None
        caller = _caller(endpoint, visit.request, body, now)
        if isinstance(caller, Refusal):
            return caller
        greeted = self._greet(visit, body, caller)
        return self._store(visit, body, now, reply) if greeted is None else greeted

    def _later(self, visit: Visit, judge: Judge, reply: Reply) -> None:
        """Do the same where the judgement has to wait for something."""
        task = asyncio.get_running_loop().create_task(self._answer_later(visit, judge, reply))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer_later(self, visit: Visit, judge: Judge, reply: Reply) -> None:
        try:
            found = await judge()
        except Exception:  # noqa: BLE001 - the same edge
            found = _failed(visit.correlation_id)
        self._reply(visit, found, reply)

    async def _take_slowly(self, visit: Visit, body: bytes, now: datetime, reply: Reply) -> Answer | Refusal | None:
        endpoint = visit.endpoint
        message = await self._message(endpoint, body, now) if endpoint.row.verification.scheme == "sns" else None
        if isinstance(message, Refusal):
            return message
        caller = None if message is not None else _caller(endpoint, visit.request, body, now)
        if isinstance(caller, Refusal):
            return caller
        if message is not None and message.subscribe_url is not None:
            return await self._confirm(endpoint, message.subscribe_url, visit.correlation_id)
        greeted = self._greet(visit, body, caller)
        if greeted is not None:
            return greeted
        if endpoint.rate is not None and (seconds := await endpoint.rate.take()) != 0.0:
            return UNAVAILABLE if seconds is None else _limited(endpoint, seconds)
        return self._store(visit, body, now, reply)

    def _greet(self, visit: Visit, body: bytes, caller: KeyRow | None) -> Answer | Refusal | None:
        """Answer a handshake that was proved; None if it is a webhook that may be stored."""
        endpoint, scheme = visit.endpoint, visit.endpoint.row.verification.scheme
        if scheme not in handshakes.SIGNED:
            return None
        shaken = handshakes.proved(scheme, body, caller)
        if shaken is not None:
            return self._handshake(endpoint, shaken, visit.correlation_id)
        # By its head it may have been a handshake, so it was let in whatever there is against a webhook.
        return self._refuse_webhook(endpoint)

    def _store(self, visit: Visit, body: bytes, now: datetime, reply: Reply) -> Refusal | None:
        event, lines = _event(visit, body, now), visit.endpoint.lines
        placed = self._placing.place(lines, event) if lines else event
        if isinstance(placed, Unplaced):
            self._later(visit, partial(self._store_in_turn, visit, placed, reply), reply)
            return None
        return self._store_placed(visit, placed, reply)

    async def _store_in_turn(self, visit: Visit, unplaced: Unplaced, reply: Reply) -> Refusal | None:
        return self._store_placed(visit, await self._placing.place_in_turn(unplaced), reply)

    def _store_placed(self, visit: Visit, placed: NewEvent | Refusal, reply: Reply) -> Refusal | None:
        if isinstance(placed, Refusal):
            return placed
        self._intake.store(placed).add_done_callback(partial(self._stored, visit, placed, reply))
        return None

    def _stored(self, visit: Visit, event: NewEvent, reply: Reply, done: asyncio.Future[Outcome]) -> None:
        outcome = done.result()
        if isinstance(outcome, Refusal):
            reply(self.refuse(visit, outcome))
            return
        endpoint, duplicate = visit.endpoint, isinstance(outcome, Duplicate)
        self._metrics.duration.observe(self._monotonic() - visit.started)
        self._metrics.count(endpoint.label, _result(endpoint, event, duplicate))
        if logger.isEnabledFor(logging.DEBUG):
            facts = {"event_id": str(outcome.event_id), "correlation_id": visit.correlation_id}
            logger.debug("accepted", extra=facts)
        reply(
            accepted(
                outcome.event_id,
                duplicate=duplicate,
                correlation_id=visit.correlation_id,
                scheme=endpoint.row.verification.scheme,
            )
        )

    def _look(self, request: Request, endpoint: Endpoint, correlation_id: str) -> Answer | Refusal:
        """Answer what is no POST; a suspended endpoint too, so that its provider does not forget it."""
        if request.method == "GET":
            now, scheme = self._now(), endpoint.row.verification.scheme
            keys, tokens = endpoint.live_keys(now), endpoint.live_tokens(now)
            found = handshakes.looked(scheme, request.url.query, request.headers, keys, tokens)
            if found is not None:
                return self._open_handshake(endpoint, found, correlation_id)
        return _describe(request.method, correlation_id)

    async def _message(self, endpoint: Endpoint, body: bytes, now: datetime) -> sns.Message | Refusal:
        """Return a message of SNS whose signature holds."""
        message = sns.read(endpoint.row.verification, body)
        if isinstance(message, proofs.Rejected):
            return _unproved(endpoint, message)
        certificate = self._certificates.known(message.certificate_url)
        if certificate is None:
            fetched = await self._fetch(endpoint, message.certificate_url)
            if isinstance(fetched, Refusal):
                return fetched
            certificate = fetched
        verdict = sns.verify(message, certificate, now)
        return _unproved(endpoint, verdict) if isinstance(verdict, proofs.Rejected) else message

    async def _fetch(self, endpoint: Endpoint, url: str) -> bytes | Refusal:
        """Return a certificate that is not at hand; who names it has proved nothing yet, so it is bounded."""
        if seconds := endpoint.handshakes.take(self._monotonic()):
            detail = "too many certificates were asked for"
            return Refusal(code="certificate_unknown", detail=detail, retry_after=max(1, ceil(seconds)))
        try:
            ended = await self._certificates.fetch(url)
        except Exception as error:
            if not database.is_away(error):
                raise
            return Refusal(code="storage_unavailable", detail="the database is away", retry_after=READY_RETRY)
        if ended is not None and ended.answer is not None:
            return ended.answer
        detail = "it is being fetched" if ended is None else f"it could not be fetched: {ended.failure}"
        return Refusal(code="certificate_unknown", detail=detail, retry_after=CERTIFICATE_RETRY)

    async def _confirm(self, endpoint: Endpoint, url: str, correlation_id: str) -> Answer | Refusal:
        try:
            await self._certificates.confirm(url)
        except Exception as error:
            if not database.is_away(error):
                raise
            return Refusal(code="storage_unavailable", detail="the database is away", retry_after=READY_RETRY)
        # A crash from here on loses nothing: the errand is committed, and a deliverer goes.
        return self._handshake(endpoint, handshakes.Answer(), correlation_id)

    def _open_handshake(
        self, endpoint: Endpoint, found: handshakes.Answer | proofs.Rejected, correlation_id: str
    ) -> Answer | Refusal:
        """Answer a handshake of somebody who has proved nothing: so often, and not more."""
        if seconds := endpoint.handshakes.take(self._monotonic()):
            allowed = "the endpoint answers so many handshakes a second, and not more"
            return Refusal(code="rate_limited", detail=allowed, retry_after=max(1, ceil(seconds)))
        return self._handshake(endpoint, found, correlation_id)

    def _handshake(
        self, endpoint: Endpoint, found: handshakes.Answer | proofs.Rejected, correlation_id: str
    ) -> Answer | Refusal:
        if isinstance(found, proofs.Rejected):
            return _unproved(endpoint, found)
        self._metrics.count(endpoint.label, "handshake")
        return _spoken(found, correlation_id)

    def _unknown(self) -> Refusal:
        """Answer a path without endpoint; before the first configuration nothing is known to be unknown."""
        if not self._index.loaded:
            return Refusal(code="not_ready", detail="it is being loaded", retry_after=READY_RETRY)
        return Refusal(code="unknown_endpoint", detail="no endpoint takes webhooks at this URL")

    def _refuse_early(self, endpoint: Endpoint, request: Request) -> Refusal | None:
        """Refuse what needs no body to be refused; not a handshake, or its provider would forget the endpoint."""
        scheme, declared = endpoint.row.verification.scheme, request.headers.get("Content-Length")
        # Of zeros before it there may be more than int() takes digits.
        length = None if declared is None else int(declared.lstrip("0") or "0")
        asks = scheme in handshakes.ASKING and handshakes.asked(scheme, request.url.query) is not None
        refusal = None if asks or handshakes.possible(scheme, length) else self._refuse_webhook(endpoint)
        if refusal is None and length is not None and length > endpoint.row.max_body_bytes:
            return too_large(endpoint)
        return refusal

    def _refuse_webhook(self, endpoint: Endpoint) -> Refusal | None:
        """Return what there is against taking a webhook now, whatever is in it."""
        if endpoint.row.suspend:
            return Refusal(code="endpoint_suspended", detail="its owner stopped it", retry_after=SUSPENDED_RETRY)
        if endpoint.rate is not None and (seconds := endpoint.rate.wait()):
            return _limited(endpoint, seconds)
        refusal = self._intake.refusal(endpoint.row.id)
        return self._placing.refusal(endpoint.lines) if refusal is None and endpoint.lines.took else refusal


def _caller(endpoint: Endpoint, request: Request, body: bytes, now: datetime) -> KeyRow | Refusal | None:
    """Return the key with which the caller has proved itself, None where none is asked for."""
    verification = endpoint.row.verification
    keys = endpoint.live_keys(now)
    if not keys and signatures.needs_key(verification.scheme):
        # Not the caller's fault: it shall send again once the key is there.
        return Refusal(code="signing_key_missing", detail="its SigningKey has no live version", retry_after=KEY_RETRY)
    verdict = signatures.verify(verification, request.headers, body, keys, now, request.raw_path)
    if isinstance(verdict, proofs.Rejected):
        return _unproved(endpoint, verdict)
    return next((key for key in keys if key.id == verdict.key_id), None)


def _unproved(endpoint: Endpoint, verdict: proofs.Rejected) -> Refusal:
    challenge = {"basic": "Basic", "bearer": "Bearer"}.get(endpoint.row.verification.scheme, "Webhook-Signature")
    return Refusal(
        code=verdict.code, detail=verdict.detail, headers=(("WWW-Authenticate", f'{challenge} realm="kapsel"'),)
    )


def _spoken(answer: handshakes.Answer, correlation_id: str) -> Answer:
    headers = {"Cache-Control": "no-store"}
    if answer.body:
        headers |= {"Content-Type": answer.content_type, "X-Content-Type-Options": "nosniff"}
    return Answer(answer.status, lines(correlation_id, headers), answer.body)


def too_large(endpoint: Endpoint) -> Refusal:
    """Refuse a body that was declared, or has become, larger than the endpoint takes."""
    detail = f"the endpoint takes bodies of up to {endpoint.row.max_body_bytes} bytes"
    return Refusal(code="body_too_large", detail=detail, close=True)


def _failed(correlation_id: str) -> Refusal:
    """Log the exception that is being handled."""
    logger.exception("a request failed", extra={"correlation_id": correlation_id})
    return Refusal(code="internal_error", detail="it was logged; send the webhook again")


def _limited(endpoint: Endpoint, seconds: float) -> Refusal:
    limit = endpoint.row.rate_limit
    allowed = "" if limit is None else f"{limit.requests_per_second:g} a second, {limit.burst} at once"
    return Refusal(code="rate_limited", detail=f"the endpoint takes {allowed}", retry_after=max(1, ceil(seconds)))


def _event(visit: Visit, body: bytes, now: datetime) -> NewEvent:
    row, headers = visit.endpoint.row, visit.request.headers
    body_hash = hashlib.sha256(body).digest()
    key = idempotency.key(row.idempotency, row.verification.scheme, headers, body, body_hash)
    return NewEvent(
        id=ids.new(),
        endpoint_id=row.id,
        received_at=now,
        content_type=_text(proofs.raw(headers.get("Content-Type", "application/octet-stream"))),
        headers=_stored_headers(headers),
        body=body,
        body_hash=body_hash,
        salt=entropy.take(32),
        idempotency_key=key,
        idempotency_window=None if key is None or row.idempotency is None else row.idempotency.window,
        correlation_id=visit.correlation_id,
        deliveries=tuple(
            [
                NewDelivery(id=ids.new(), destination_id=destination_id, max_age=max_age)
                for destination_id, max_age in visit.endpoint.destinations
            ]
        ),
    )


def _stored_headers(headers: Mapping[str, str]) -> str:
    pairs = [pair for pair in headers.items() if pair[0].lower() not in SECRET_HEADERS]
    # As json.dumps writes it, which would take twice as long to begin.
    stored = "[" + ", ".join([f"[{_quoted(name)}, {_quoted(value)}]" for name, value in pairs]) + "]"
    if "\\udc" in stored:  # where a byte was that is no UTF-8; no JSON parser has to take half a surrogate pair
        return json.dumps([(_text(proofs.raw(name)), _text(proofs.raw(value))) for name, value in pairs])
    return stored


def _text(value: bytes) -> str:
    """Return a header as text: nothing says in which encoding one is, and every byte string is Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _result(endpoint: Endpoint, event: NewEvent, duplicate: bool) -> str:
    if duplicate:
        return "duplicate"
    # The endpoint asks for a key that the request did not bring: stored, since losing it would be worse.
    missing = endpoint.row.idempotency is not None and event.idempotency_key is None
    return "accepted_without_key" if missing else "accepted"


def _describe(method: str, correlation_id: str) -> Answer | Refusal:
    """Answer the look that consoles of providers take at a URL before they save it; it tells nothing more."""
    if method not in ("GET", "HEAD"):
        return Refusal(code="method_not_allowed", detail=f"not with {method}", headers=(("Allow", METHODS),))
    headers = lines(correlation_id, {"Content-Type": "application/json", "Allow": METHODS})
    return Answer(200, headers, b'{"status": "ready", "accepts": "POST"}')


def _correlation_id(headers: Mapping[str, str]) -> str:
    """Return the caller's correlation id if it is fit to be logged and stored, else a new one."""
    for name in _CORRELATION_HEADERS:
        value = headers.get(name)
        if value is not None and _CORRELATION_ID.fullmatch(value):
            return value
    return _new_correlation_id()


def _new_correlation_id() -> str:
    return entropy.take(16).hex()

"""Access tokens of destinations that want them: OAuth 2, client credentials (RFC 6749, 4.4).

The sender asks for the token of a destination before a try, and brings the way to fetch one, which is the way of
deliveries: the same resolver, the same refusals. A token is kept in memory until shortly before it expires, one fetch
at a time is under way for each client, and after a failure the server is left alone for a moment. Destinations that
declare the same client share its token.
"""

import asyncio
import base64
import json
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_plus, urlencode

from aiohttp.client_reqrep import ClientRequest

from kapsel_deliverer.exchange import BODY_KEPT, Response
from kapsel_deliverer.outcome import Outcome, Unsent, UnsentReason
from kapsel_egress.verdicts import Denied
from kapsel_store.rows import OAuth2

FETCH_TIMEOUT: Final = 10.0  # seconds
PAUSE: Final = 5.0  # seconds after a failure until the server is asked again
LIFETIME: Final = 300.0  # seconds of a token whose server does not say
LONGEST: Final = 86_400.0  # seconds that a token is used, whatever its server says
DOUBTED: Final = 60.0  # seconds that a token is used whose first answer was 401, like that of the one before it
MARGIN: Final = 60.0  # seconds before its end that a token is replaced, or a tenth of its life if that is less

_TOKEN: Final = re.compile(r"[!-~]{1,8192}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What one destination declares, ready to ask; two that are equal are one client."""

    url: str
    form: bytes = field(repr=False)
    authorization: str | None = field(repr=False)  # None: the form has id and secret
    denied: Denied | None  # why tokens cannot be asked for
    # A token is for whoever asked with this certificate, and from a server that these authorities vouch for.
    context: ssl.SSLContext | None = field(repr=False)
    request: ClientRequest = field(repr=False, compare=False)
    head: bytes = field(repr=False, compare=False)


@dataclass(slots=True, eq=False)
class Token:
    """One token; it is told from another by what it is, not by what it says."""

    value: str = field(repr=False)
    fresh_until: float  # monotonic
    accepted: bool = False  # the destination has answered something else than 401
    replaces: bool = False  # one that was refused


Fetch = Callable[[Client], Awaitable[Response | Outcome]]


def form(declared: OAuth2, client_id: bytes, client_secret: bytes) -> tuple[bytes, str | None]:
    """Return the body that asks for a token, and the Authorization header beside it, if any."""
    fields = {"grant_type": "client_credentials"}
    if declared.scopes:
        fields["scope"] = " ".join(declared.scopes)
    if declared.audience is not None:
        fields["audience"] = declared.audience
    identity, secret = client_id.decode(), client_secret.decode()
    if declared.authentication == "Post":
        return urlencode({**fields, "client_id": identity, "client_secret": secret}).encode(), None
    # RFC 6749, 2.3.1: both are encoded as in a form before they are put together.
    pair = f"{quote_plus(identity)}:{quote_plus(secret)}"
    return urlencode(fields).encode(), f"Basic {base64.b64encode(pair.encode()).decode()}"


@dataclass(slots=True)
class _Kept:
    """What is known of one client; times are monotonic."""

    token: Token | None = None
    refused: bool = False  # the last token was, and has not been replaced yet
    failed: UnsentReason | None = None
    asked_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one fetch at a time, the others wait for its answer


class Tokens:
    """The tokens of all clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Client, _Kept] = {}

    def keep(self, clients: Collection[Client]) -> None:
        """Forget all clients but these: no more are kept than the configuration names."""
        self._kept = {client: self._kept.get(client) or _Kept() for client in clients}

    async def token(self, client: Client, fetch: Fetch) -> Token | UnsentReason:
        """Return a token that is good for a while, or why there is none."""
        if client.denied is not None:
            return "token_denied"
        kept = self._kept.setdefault(client, _Kept())
        known = self._known(kept)
        if known is None:
            async with kept.lock:
                known = self._known(kept)  # else whoever had the lock has asked
                if known is None:
                    known = await self._ask(kept, client, fetch)
        return known

    def answered(self, client: Client, token: Token, status: int) -> bool:
        """Take note of an answer to a token; return whether it was refused and another one may do better.

        Once: where the token that replaces a refused one is refused too, the destination wants something else. Or that
        one was taken back before it was ever used, so it is doubted, and replaced after a while all the same.
        """
        kept = self._kept.get(client)
        if status != 401:
            token.accepted = True
            if kept is not None and kept.token is token:
                kept.refused = False
            return False
        if token.replaces and not token.accepted:
            if kept is not None and kept.token is token:
                token.fresh_until, kept.refused = min(token.fresh_until, kept.asked_at + DOUBTED), True
            return False
        if kept is not None and kept.token is token:
            kept.token, kept.refused = None, True
        return True

    def _known(self, kept: _Kept) -> Token | UnsentReason | None:
        now = self._clock()
        if kept.token is not None and now < kept.token.fresh_until:
            return kept.token
        return kept.failed if kept.failed is not None and now - kept.asked_at < PAUSE else None

    async def _ask(self, kept: _Kept, client: Client, fetch: Fetch) -> Token | UnsentReason:
        result = await fetch(client)
        kept.asked_at = self._clock()
        found = _read(result, kept.asked_at)
        if isinstance(found, Token):
            found.replaces, kept.refused = kept.refused, False
            kept.token, kept.failed = found, None
        else:
            kept.token, kept.failed = None, found
            said = f"status {result.status}" if isinstance(result, Response) else result.reason
            logger.warning("no access token from %s: %s (%s)", client.url, found, said)
        return found


def _read(result: Response | Outcome, now: float) -> Token | UnsentReason:
    """Read what came of a fetch; nothing that the server says of an error is repeated, for it may repeat secrets."""
    if isinstance(result, Denied):
        return "token_denied"
    if isinstance(result, Unsent):  # by the proxy
        return result.reason
    if not isinstance(result, Response):
        return "token_unavailable"
    if result.status in (400, 401, 403):
        return "token_refused"
    if result.status != 200 or not result.whole or result.size > BODY_KEPT:
        return "token_unavailable"
    try:
        answer = json.loads(result.body)
    except (ValueError, RecursionError):
        return "token_unavailable"
    if not isinstance(answer, dict):
        return "token_unavailable"
    value, kind, lifetime = answer.get("access_token"), answer.get("token_type"), answer.get("expires_in", LIFETIME)
    if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit():  # some servers write it so
        lifetime = int(lifetime[:9])
    if (
        not isinstance(value, str)
        or not _TOKEN.fullmatch(value)
        or not (isinstance(kind, str) and kind.lower() == "bearer")
        or not isinstance(lifetime, int | float)
        or not lifetime > 0
    ):
        return "token_unavailable"
    lifetime = float(min(lifetime, LONGEST))  # an integer of JSON may be beyond any float
    return Token(value=value, fresh_until=now + lifetime - min(MARGIN, lifetime / 10))

"""What a provider asks before it sends webhooks, and what it wants to hear: one answer each, and no event.

Called by `app`: `looked` for a GET, `possible` for the head of a POST, `asked` for a POST before the caller has proved
itself, `proved` after. Pure. What is said back is bounded and of few characters: nobody shall use an ingest URL to put
a page, or a signature over something that could be a webhook, into the world.
"""

import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kapsel_receiver import providers
from kapsel_receiver.proofs import Headers, Rejected, raw
from kapsel_store import event_names
from kapsel_store.rows import KeyRow, Scheme

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
LARGEST: Final = 8192  # bytes of a handshake's body: a webhook of that size need not be parsed to be known as one
ASKING: Final[frozenset[Scheme]] = frozenset({"microsoftGraph"})  # whose handshake is a POST without proof
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}", re.ASCII)
_PRINTABLE: Final = re.compile(r"[ -~]{1,2048}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the provider hears."""

    body: bytes = b""
    content_type: str = TEXT
    status: int = 200


def _json(**members: Any) -> Answer:
    return Answer(body=json.dumps(members).encode(), content_type=JSON)


def _malformed(what: str) -> Rejected:
    return Rejected(code="credentials_malformed", detail=f"{what} is not of the form that its provider gives it")


def looked(
    scheme: Scheme, query: Mapping[str, str], headers: Headers, keys: Sequence[KeyRow], tokens: Sequence[KeyRow]
) -> Answer | Rejected | None:
    """Answer a GET; None if it is no handshake of this scheme."""
    match scheme:
        case "meta" if "hub.mode" in query:
            return _meta(query, tokens)
        case "x" if "crc_token" in query:
            if not _TOKEN.fullmatch(query["crc_token"]):
                return _malformed("crc_token")
            if not keys:
                return Rejected(code="credentials_mismatch", detail="the endpoint has no live key")
            # The youngest is the one that X has, or is about to have.
            secret = max(keys, key=lambda key: key.version).secret
            return _json(response_token=providers.crc_response(secret, query["crc_token"]))
        case "dropbox" if "challenge" in query:
            challenge = query["challenge"]
            return Answer(body=challenge.encode()) if _TOKEN.fullmatch(challenge) else _malformed("challenge")
        case "okta":
            values = headers.getall("X-Okta-Verification-Challenge", ())
            if not values:
                return None
            return _json(verification=values[0]) if _PRINTABLE.fullmatch(values[0]) else _malformed("the challenge")
    return None


def _meta(query: Mapping[str, str], tokens: Sequence[KeyRow]) -> Answer | Rejected:
    given, challenge = raw(query.get("hub.verify_token", "")), query.get("hub.challenge", "")
    if query["hub.mode"] != "subscribe" or not any(hmac.compare_digest(key.secret, given) for key in tokens):
        return Rejected(code="credentials_mismatch", detail="hub.verify_token is not the one of the endpoint")
    return Answer(body=challenge.encode()) if _TOKEN.fullmatch(challenge) else _malformed("hub.challenge")


def asked(scheme: Scheme, query: Mapping[str, str]) -> Answer | Rejected | None:
    """Answer a POST that its provider does not sign; None if it is no handshake."""
    if scheme not in ASKING or "validationToken" not in query:
        return None
    token = query["validationToken"]
    return Answer(body=token.encode()) if _PRINTABLE.fullmatch(token) else _malformed("validationToken")


def possible(scheme: Scheme, length: int | None) -> bool:
    """Return whether a POST whose body is of this length, if it says so, may be a handshake that its provider signs."""
    return scheme in SIGNED and (length is None or length <= LARGEST)


def proved(scheme: Scheme, body: bytes, key: KeyRow | None) -> Answer | Rejected | None:
    """Answer a POST whose caller has proved itself, with this key; None if it is a webhook."""
    if scheme not in PROVED or len(body) > LARGEST:
        return None
    document = event_names.document(body)
    return PROVED[scheme](document, key) if isinstance(document, dict) else None


def _slack(document: dict[str, Any], _: KeyRow | None) -> Answer | Rejected | None:
    if document.get("type") != "url_verification":
        return None
    challenge = event_names.member(document, ("challenge",))
    known = challenge is not None and _PRINTABLE.fullmatch(challenge)
    return Answer(body=challenge.encode()) if challenge is not None and known else _malformed("challenge")


def _zoom(document: dict[str, Any], key: KeyRow | None) -> Answer | Rejected | None:
    if document.get("event") != "endpoint.url_validation" or key is None:
        return None
    token = event_names.member(document, ("payload", "plainToken"))
    if token is None or not _TOKEN.fullmatch(token):
        return _malformed("plainToken")
    return _json(plainToken=token, encryptedToken=providers.signed_token(key.secret, token).hex())


def _discord(document: dict[str, Any], _: KeyRow | None) -> Answer | Rejected | None:
    """Answer a PING: that of webhook events is of type 0, that of interactions of type 1, which an event is too."""
    if "event" in document:
        return None
    return {0: Answer(status=204), 1: _json(type=1)}.get(_number(document.get("type")))


def _number(value: object) -> int:
    return value if type(value) is int else -1


PROVED: Final[Mapping[Scheme, Callable[[dict[str, Any], KeyRow | None], Answer | Rejected | None]]] = {
    "slack": _slack,
    "zoom": _zoom,
    "discord": _discord,
}
SIGNED: Final[frozenset[Scheme]] = frozenset({*PROVED, "sns"})  # whose handshake is a POST like any other, by its head

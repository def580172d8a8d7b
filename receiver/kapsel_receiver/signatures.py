"""Who sent this? One verifier per scheme: headers and raw body bytes in, Verified or Rejected out, no IO.

Called by `app` for every request, with the keys that are live at that moment; a request is good if one of them fits,
so that keys rotate without a gap. What the checks are made of is in `proofs`, the schemes that one provider alone has
are in `providers`. What makes an event unique is the business of `idempotency`.

Secrets are raw bytes as the plan made them: Standard Webhooks' decoded from whsec_, basic's as `user:password`, all
others' the UTF-8 text that the provider shows.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from kapsel_receiver import providers
from kapsel_receiver.proofs import (
    MOST_SIGNATURES,
    Headers,
    Rejected,
    Verified,
    credentials,
    decode,
    fresh,
    hmac_over,
    match,
    match_ed25519,
    raw,
    same_credentials,
    single,
    timestamp,
)
from kapsel_store.rows import KeyRow, Scheme, Verification


def verify(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime, target: str = ""
) -> Verified | Rejected:
    """Check one request against the live `keys` of its endpoint; `target` is its path with its query."""
    check = _SCHEMES.get(verification.scheme)
    if check is not None:
        return check(verification, headers, body, keys, now)
    return providers.CHECKS[verification.scheme](
        providers.Request(verification=verification, headers=headers, body=body, keys=keys, now=now, target=target)
    )


def needs_key(scheme: Scheme) -> bool:
    """Whether a scheme cannot verify anything without a live key."""
    return scheme not in ("none", "discord", "sns")


def _hmac(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check an HMAC of the body, or of `<timestamp>.<body>` where a timestamp header is configured."""
    header = verification.header or "X-Signature"
    signature = single(headers, header)
    if isinstance(signature, Rejected):
        return signature
    if verification.timestamp_header is None:
        return hmac_over(body, signature, verification, header, keys)
    stamped = timestamp(headers, verification.timestamp_header, now, verification.tolerance)
    if isinstance(stamped, Rejected):
        return stamped
    return hmac_over(stamped + b"." + body, signature, verification, header, keys)


_GITHUB: Final = Verification(scheme="github", header="X-Hub-Signature-256", prefix="sha256=")
_SHOPIFY: Final = Verification(scheme="shopify", header="X-Shopify-Hmac-SHA256", encoding="base64")
_SLACK: Final = Verification(scheme="slack", prefix="v0=")


def _github(
    _: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    return _hmac(_GITHUB, headers, body, keys, now)


def _shopify(
    _: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    return _hmac(_SHOPIFY, headers, body, keys, now)


def _slack(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check Slack's v0: HMAC-SHA256 of `v0:<timestamp>:<body>`."""
    signature = single(headers, "X-Slack-Signature")
    if isinstance(signature, Rejected):
        return signature
    stamp = timestamp(headers, "X-Slack-Request-Timestamp", now, verification.tolerance)
    if isinstance(stamp, Rejected):
        return stamp
    return hmac_over(b"v0:" + stamp + b":" + body, signature, _SLACK, "X-Slack-Signature", keys)


def _stripe(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check `t=<seconds>,v1=<hex>[,v1=...]`: HMAC-SHA256 of `<t>.<body>`; other schemes in the list are skipped."""
    header = single(headers, "Stripe-Signature")
    if isinstance(header, Rejected):
        return header
    pairs = [part.strip().partition("=") for part in header.split(",")]
    stamps = [value for name, _, value in pairs if name == "t"]
    signatures = [decode(value, "hex") for name, _, value in pairs if name == "v1"]
    if len(stamps) != 1:
        return Rejected(code="timestamp_missing", detail=f"Stripe-Signature has t= {len(stamps)} times, not once")
    found = [signature for signature in signatures if signature is not None and len(signature) == 32]
    if not found or len(found) != len(signatures) or len(found) > MOST_SIGNATURES:
        return Rejected(
            code="signature_malformed",
            detail=f"Stripe-Signature needs one to {MOST_SIGNATURES} v1= elements of 64 hexadecimal digits",
        )
    stale = fresh(stamps[0], now, verification.tolerance)
    return stale or match(keys, stamps[0].encode() + b"." + body, "sha256", found)


def standard_prefix(headers: Headers) -> str:
    """Return how the three headers of Standard Webhooks begin in a request: the id beside the signature is signed."""
    only_svix = headers.getall("svix-signature", ()) and not headers.getall("webhook-signature", ())
    return "svix-" if only_svix else "webhook-"


def _standard_webhooks(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check `<version>,<base64>` elements over `<id>.<timestamp>.<body>`: v1 is HMAC-SHA256, v1a is Ed25519.

    Many senders still use the older names svix-id, svix-timestamp and svix-signature for the same three headers.
    """
    prefix = standard_prefix(headers)
    header = single(headers, prefix + "signature")
    if isinstance(header, Rejected):
        return header
    identifier = single(headers, prefix + "id")
    if isinstance(identifier, Rejected):
        return identifier
    stamp = timestamp(headers, prefix + "timestamp", now, verification.tolerance)
    if isinstance(stamp, Rejected):
        return stamp
    elements = [element.partition(",") for element in header.split(" ")]
    if len(elements) > MOST_SIGNATURES:
        return Rejected(code="signature_malformed", detail=f"more than {MOST_SIGNATURES} signatures")
    signed = raw(identifier) + b"." + stamp + b"." + body
    return _match_versions(elements, signed, keys)


def _match_versions(
    elements: Sequence[tuple[str, str, str]], signed: bytes, keys: Sequence[KeyRow]
) -> Verified | Rejected:
    symmetric = [decode(value, "base64") for version, _, value in elements if version == "v1"]
    asymmetric = [decode(value, "base64") for version, _, value in elements if version == "v1a"]
    if not symmetric and not asymmetric:
        return Rejected(code="signature_malformed", detail="the signature list holds no v1 and no v1a element")
    macs = [mac for mac in symmetric if mac is not None and len(mac) == 32]
    signatures = [signature for signature in asymmetric if signature is not None and len(signature) == 64]
    if len(macs) + len(signatures) != len(symmetric) + len(asymmetric):
        return Rejected(code="signature_malformed", detail="a v1 or v1a element is not base64 of the right length")
    verified = match(keys, signed, "sha256", macs)
    if isinstance(verified, Verified):
        return verified
    return match_ed25519(keys, signed, signatures)


def _basic(
    _: Verification, headers: Headers, _body: bytes, keys: Sequence[KeyRow], _now: datetime
) -> Verified | Rejected:
    given = credentials(headers, "basic")
    if isinstance(given, Rejected):
        return given
    try:
        pair = base64.b64decode(given, validate=True)
    except ValueError:
        return Rejected(code="credentials_malformed", detail="the basic credentials are not base64")
    return same_credentials(keys, pair)


def _bearer(
    _: Verification, headers: Headers, _body: bytes, keys: Sequence[KeyRow], _now: datetime
) -> Verified | Rejected:
    given = credentials(headers, "bearer")
    return given if isinstance(given, Rejected) else same_credentials(keys, given)


def _none(
    _: Verification, _headers: Headers, _body: bytes, _keys: Sequence[KeyRow], _now: datetime
) -> Verified | Rejected:
    return Verified(key_id=None)


_Verifier = Callable[[Verification, Headers, bytes, Sequence[KeyRow], datetime], Verified | Rejected]

_SCHEMES: Final[Mapping[Scheme, _Verifier]] = {
    "github": _github,
    "stripe": _stripe,
    "shopify": _shopify,
    "slack": _slack,
    "standardWebhooks": _standard_webhooks,
    "hmac": _hmac,
    "basic": _basic,
    "bearer": _bearer,
    "none": _none,
}

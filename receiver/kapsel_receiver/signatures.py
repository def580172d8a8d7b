"""Who sent this? One verifier per scheme: headers and raw body bytes in, Verified or Rejected out, no IO.

Called by `app` for every request, with the keys that are live at that moment; a request is good if one of them fits,
so that keys rotate without a gap. Signatures are decoded strictly and compared as raw bytes in constant time. What
makes an event unique is the business of `idempotency`.

Secrets are raw bytes as the plan made them: GitHub's, Stripe's, Shopify's and Slack's as UTF-8 text, Standard Webhooks'
decoded from whsec_, basic's as `user:password`, bearer's the token.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol
from uuid import UUID

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from kapsel_store.rows import Encoding, HashName, KeyRow, Scheme, Verification

Code = Literal[
    "signature_missing",
    "signature_malformed",
    "signature_mismatch",
    "timestamp_missing",
    "timestamp_malformed",
    "timestamp_out_of_tolerance",
    "credentials_missing",
    "credentials_malformed",
    "credentials_mismatch",
]

MOST_SIGNATURES: Final = 16  # in one header: an Ed25519 check costs the receiver far more than the sender
_DIGEST_SIZES: Final[Mapping[HashName, int]] = {"sha1": 20, "sha256": 32, "sha512": 64}


class Headers(Protocol):
    """What a verifier needs of a case-insensitive multi-dict."""

    def getall(self, key: str, default: Sequence[str]) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The caller holds the key; `key_id` is None where no key is asked for."""

    key_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The caller did not prove itself."""

    code: Code
    detail: str


def verify(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check one request against the live `keys` of its endpoint."""
    return _SCHEMES[verification.scheme](verification, headers, body, keys, now)


def needs_key(scheme: Scheme) -> bool:
    """Whether a scheme cannot verify anything without a live key."""
    return scheme != "none"


def decode(text: str, encoding: Encoding) -> bytes | None:
    """Return the bytes of strict hex or strict padded base64, None for anything else."""
    try:
        if encoding == "hex":
            return binascii.unhexlify(text)
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one; so is text beyond ASCII
        return None


def raw(value: str) -> bytes:
    """Return the bytes of a header value as they were sent."""
    return value.encode("utf-8", "surrogateescape")


def _single(headers: Headers, name: str) -> str | Rejected:
    """Return the only value of a signature header; a second one would leave open which of them was meant."""
    values = headers.getall(name, ())
    if len(values) == 1 and values[0]:
        return values[0]
    if not values or values == [""]:
        return Rejected(code="signature_missing", detail=f"the header {name} is missing")
    return Rejected(code="signature_malformed", detail=f"the header {name} is there {len(values)} times")


def _fresh(text: str, now: datetime, tolerance: timedelta) -> Rejected | None:
    """Reject a timestamp that is no whole number of seconds, or too far from now on either side."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return Rejected(code="timestamp_malformed", detail="the timestamp is not a whole number of seconds since 1970")
    age = now.timestamp() - int(text)
    if abs(age) <= tolerance.total_seconds():
        return None
    side = "old" if age > 0 else "ahead of the receiver's clock"
    return Rejected(
        code="timestamp_out_of_tolerance",
        detail=f"the timestamp is {abs(age):.0f} s {side}; {tolerance.total_seconds():.0f} s are allowed",
    )


def _match(
    keys: Sequence[KeyRow], signed: bytes, algorithm: HashName, signatures: Sequence[bytes]
) -> Verified | Rejected:
    for key in keys:
        if key.algorithm == "Ed25519":
            continue
        expected = hmac.digest(key.secret, signed, algorithm)
        for signature in signatures:
            if hmac.compare_digest(expected, signature):
                return Verified(key_id=key.id)
    return _mismatch()


def _mismatch() -> Rejected:
    return Rejected(code="signature_mismatch", detail="no live key of the endpoint made this signature over this body")


def _hmac_over(
    signed: bytes, signature: str, verification: Verification, header: str, keys: Sequence[KeyRow]
) -> Verified | Rejected:
    """Check one encoded HMAC with a prefix over the signed bytes."""
    if not signature.startswith(verification.prefix):
        return Rejected(code="signature_malformed", detail=f"{header} does not begin with {verification.prefix!r}")
    digest = decode(signature[len(verification.prefix) :], verification.encoding)
    if digest is None or len(digest) != _DIGEST_SIZES[verification.algorithm]:
        return Rejected(
            code="signature_malformed", detail=f"{header} is no {verification.encoding} {verification.algorithm} digest"
        )
    return _match(keys, signed, verification.algorithm, (digest,))


def _hmac(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check an HMAC of the body, or of `<timestamp>.<body>` where a timestamp header is configured."""
    header = verification.header or "X-Signature"
    signature = _single(headers, header)
    if isinstance(signature, Rejected):
        return signature
    if verification.timestamp_header is None:
        return _hmac_over(body, signature, verification, header, keys)
    stamped = _timestamp(headers, verification.timestamp_header, now, verification.tolerance)
    if isinstance(stamped, Rejected):
        return stamped
    return _hmac_over(stamped + b"." + body, signature, verification, header, keys)


def _timestamp(headers: Headers, name: str, now: datetime, tolerance: timedelta) -> bytes | Rejected:
    values = headers.getall(name, ())
    if len(values) != 1:
        return Rejected(code="timestamp_missing", detail=f"the header {name} is there {len(values)} times, not once")
    return _fresh(values[0], now, tolerance) or values[0].encode("ascii")


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
    signature = _single(headers, "X-Slack-Signature")
    if isinstance(signature, Rejected):
        return signature
    stamp = _timestamp(headers, "X-Slack-Request-Timestamp", now, verification.tolerance)
    if isinstance(stamp, Rejected):
        return stamp
    return _hmac_over(b"v0:" + stamp + b":" + body, signature, _SLACK, "X-Slack-Signature", keys)


def _stripe(
    verification: Verification, headers: Headers, body: bytes, keys: Sequence[KeyRow], now: datetime
) -> Verified | Rejected:
    """Check `t=<seconds>,v1=<hex>[,v1=...]`: HMAC-SHA256 of `<t>.<body>`; other schemes in the list are skipped."""
    header = _single(headers, "Stripe-Signature")
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
    stale = _fresh(stamps[0], now, verification.tolerance)
    return stale or _match(keys, stamps[0].encode() + b"." + body, "sha256", found)


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
    header = _single(headers, prefix + "signature")
    if isinstance(header, Rejected):
        return header
    identifier = _single(headers, prefix + "id")
    if isinstance(identifier, Rejected):
        return identifier
    stamp = _timestamp(headers, prefix + "timestamp", now, verification.tolerance)
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
    verified = _match(keys, signed, "sha256", macs)
    if isinstance(verified, Verified):
        return verified
    return _match_ed25519(keys, signed, signatures)


def _match_ed25519(keys: Sequence[KeyRow], signed: bytes, signatures: Sequence[bytes]) -> Verified | Rejected:
    for key in keys:
        if key.algorithm != "Ed25519" or key.public is None:
            continue
        for signature in signatures:
            try:
                VerifyKey(key.public).verify(signed, signature)
            except BadSignatureError:
                continue
            return Verified(key_id=key.id)
    return _mismatch()


def _credentials(headers: Headers, scheme: str) -> bytes | Rejected:
    """Return what follows the scheme in the only Authorization header."""
    values = headers.getall("Authorization", ())
    if len(values) != 1:
        return Rejected(code="credentials_missing", detail=f"Authorization is there {len(values)} times, not once")
    name, _, credentials = values[0].partition(" ")
    if name.lower() != scheme or not credentials.strip():
        return Rejected(code="credentials_malformed", detail=f"Authorization does not carry {scheme} credentials")
    return raw(credentials.strip(" "))


def _same_credentials(keys: Sequence[KeyRow], given: bytes) -> Verified | Rejected:
    for key in keys:
        if hmac.compare_digest(key.secret, given):
            return Verified(key_id=key.id)
    return Rejected(code="credentials_mismatch", detail="no live key of the endpoint has these credentials")


def _basic(
    _: Verification, headers: Headers, _body: bytes, keys: Sequence[KeyRow], _now: datetime
) -> Verified | Rejected:
    given = _credentials(headers, "basic")
    if isinstance(given, Rejected):
        return given
    try:
        pair = base64.b64decode(given, validate=True)
    except ValueError:
        return Rejected(code="credentials_malformed", detail="the basic credentials are not base64")
    return _same_credentials(keys, pair)


def _bearer(
    _: Verification, headers: Headers, _body: bytes, keys: Sequence[KeyRow], _now: datetime
) -> Verified | Rejected:
    given = _credentials(headers, "bearer")
    return given if isinstance(given, Rejected) else _same_credentials(keys, given)


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

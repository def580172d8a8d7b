"""The schemes of single providers, each as its documentation says; docs/providers.md has a section on every one.

Called by `signatures`. Pure: one request in, Verified or Rejected out. What a provider asks before it sends is answered
by `handshakes`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from kapsel_receiver.proofs import (
    MOST_SIGNATURES,
    Headers,
    Rejected,
    Verified,
    decode,
    fresh,
    hmac_over,
    is_signed,
    match,
    mismatch,
    raw,
    same_credentials,
    single,
    timestamp,
)
from kapsel_store import event_names
from kapsel_store.rows import KeyRow, Scheme, Verification

FORM: Final = "application/x-www-form-urlencoded"
MOST_FIELDS: Final = 1000  # of a form; Twilio sends some thirty
MOST_NOTIFICATIONS: Final = 10_000  # of Microsoft Graph in one body
_PORTS: Final[Mapping[str, int]] = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One webhook, and what its endpoint says of how it is proved."""

    verification: Verification
    headers: Headers
    body: bytes
    keys: Sequence[KeyRow]
    now: datetime
    target: str  # path and query as they stood in the request line


def _of_body(header: str, request: Request, *, prefix: str = "", base64: bool = False) -> Verified | Rejected:
    """Check an HMAC-SHA256 of the body."""
    signature = single(request.headers, header)
    if isinstance(signature, Rejected):
        return signature
    form = Verification(scheme=request.verification.scheme, prefix=prefix, encoding="base64" if base64 else "hex")
    return hmac_over(request.body, signature, form, header, request.keys)


def _x(request: Request) -> Verified | Rejected:
    """Check X's HMAC of the body, which must be an object: X's handshake signs any token for whoever asks for it."""
    if not request.body.lstrip().startswith(b"{"):
        return Rejected(code="signature_mismatch", detail="what X signs is a JSON object")
    return _of_body("X-Twitter-Webhooks-Signature", request, prefix="sha256=", base64=True)


def _zoom(request: Request) -> Verified | Rejected:
    """Check Zoom's v0: HMAC-SHA256 of `v0:<timestamp>:<body>`, as Slack does it under other names."""
    signature = single(request.headers, "x-zm-signature")
    if isinstance(signature, Rejected):
        return signature
    stamp = timestamp(request.headers, "x-zm-request-timestamp", request.now, request.verification.tolerance)
    if isinstance(stamp, Rejected):
        return stamp
    form = Verification(scheme="zoom", prefix="v0=")
    return hmac_over(b"v0:" + stamp + b":" + request.body, signature, form, "x-zm-signature", request.keys)


def _paddle(request: Request) -> Verified | Rejected:
    """Check `ts=<seconds>;h1=<hex>[;h1=...]`: HMAC-SHA256 of `<ts>:<body>`."""
    header = single(request.headers, "Paddle-Signature")
    if isinstance(header, Rejected):
        return header
    pairs = [part.strip().partition("=") for part in header.split(";")]
    stamps = [value for name, _, value in pairs if name == "ts"]
    signatures = [decode(value, "hex") for name, _, value in pairs if name == "h1"]
    if len(stamps) != 1:
        return Rejected(code="timestamp_missing", detail=f"Paddle-Signature has ts= {len(stamps)} times, not once")
    found = [signature for signature in signatures if signature is not None and len(signature) == 32]
    if not found or len(signatures) > MOST_SIGNATURES:
        return Rejected(
            code="signature_malformed",
            detail=f"Paddle-Signature needs one to {MOST_SIGNATURES} h1= elements, one of 64 hexadecimal digits",
        )
    stale = fresh(stamps[0], request.now, request.verification.tolerance)
    return stale or match(request.keys, stamps[0].encode() + b":" + request.body, "sha256", found)


def _pagerduty(request: Request) -> Verified | Rejected:
    """Check `v1=<hex>[,v1=<hex>]`: HMAC-SHA256 of the body, by both secrets while one replaces the other."""
    header = single(request.headers, "X-PagerDuty-Signature")
    if isinstance(header, Rejected):
        return header
    elements = [element.strip().partition("=") for element in header.split(",")]
    signatures = [decode(value, "hex") for version, _, value in elements if version == "v1"]
    found = [signature for signature in signatures if signature is not None and len(signature) == 32]
    if not found or len(found) != len(signatures) or len(found) > MOST_SIGNATURES:
        return Rejected(
            code="signature_malformed",
            detail=f"X-PagerDuty-Signature needs one to {MOST_SIGNATURES} v1= elements of 64 hexadecimal digits",
        )
    return match(request.keys, request.body, "sha256", found)


def _docusign(request: Request) -> Verified | Rejected:
    """Check X-DocuSign-Signature-1 and those that follow, one for each key of the account: base64 HMAC-SHA256."""
    values: list[str] = []
    for number in range(1, MOST_SIGNATURES + 1):
        found = request.headers.getall(f"X-DocuSign-Signature-{number}", ())
        if not found:
            break
        values += found
    if not values:
        return Rejected(code="signature_missing", detail="the header X-DocuSign-Signature-1 is missing")
    digests = [decode(value, "base64") for value in values]
    signatures = [digest for digest in digests if digest is not None and len(digest) == 32]
    if len(signatures) != len(values) or len(values) > MOST_SIGNATURES:
        return Rejected(code="signature_malformed", detail="X-DocuSign-Signature is no base64 sha256 digest")
    return match(request.keys, request.body, "sha256", signatures)


def _linear(request: Request) -> Verified | Rejected:
    """Check Linear's HMAC of the body, and the time that stands in it."""
    verified = _of_body("Linear-Signature", request)
    if isinstance(verified, Rejected):
        return verified
    document = event_names.document(request.body)
    stamp = document.get("webhookTimestamp") if isinstance(document, dict) else None
    if type(stamp) is not int:
        return Rejected(code="timestamp_missing", detail="the body has no member webhookTimestamp that is a number")
    return fresh(str(stamp // 1000), request.now, request.verification.tolerance) or verified


def _discord(request: Request) -> Verified | Rejected:
    """Check Discord's Ed25519 signature of `<timestamp><body>` with the keys that the manifest shows."""
    header = single(request.headers, "X-Signature-Ed25519")
    if isinstance(header, Rejected):
        return header
    signature = decode(header, "hex")
    if signature is None or len(signature) != 64:
        return Rejected(code="signature_malformed", detail="X-Signature-Ed25519 is not 128 hexadecimal digits")
    stamp = timestamp(request.headers, "X-Signature-Timestamp", request.now, request.verification.tolerance)
    if isinstance(stamp, Rejected):
        return stamp
    signed = stamp + request.body
    if any(is_signed(bytes.fromhex(key), signed, signature) for key in request.verification.public_keys):
        return Verified(key_id=None)
    return mismatch()


def _token(header: str, request: Request) -> Verified | Rejected:
    """Check a secret that stands in a header as it is."""
    values = request.headers.getall(header, ())
    if len(values) != 1 or not values[0]:
        return Rejected(code="credentials_missing", detail=f"{header} is there {len(values)} times, not once")
    return same_credentials(request.keys, raw(values[0]))


def _microsoft_graph(request: Request) -> Verified | Rejected:
    """Check the secret that stands in each notification as clientState."""
    document = event_names.document(request.body)
    notifications = document.get("value") if isinstance(document, dict) else None
    if not isinstance(notifications, list) or not 0 < len(notifications) <= MOST_NOTIFICATIONS:
        return Rejected(code="credentials_missing", detail="the body has no list of notifications, its member value")
    verdict: Verified | Rejected = Rejected(code="credentials_missing", detail="no notification")
    for notification in notifications:
        state = event_names.member(notification, ("clientState",))
        if state is None:
            return Rejected(code="credentials_missing", detail="a notification has no clientState")
        verdict = same_credentials(request.keys, state.encode("utf-8", "surrogatepass"))
        if isinstance(verdict, Rejected):
            break
    return verdict


def called_url(request: Request) -> str | None:
    """Return the URL that the provider called, as far as it can be known; None if nothing tells the host."""
    path, mark, query = request.target.partition("?")
    if request.verification.public_url is not None:
        return request.verification.public_url + mark + query
    host, scheme = _last(request.headers, "Host"), "https"
    if request.verification.trust_forwarded:
        host = _last(request.headers, "X-Forwarded-Host") or host
        scheme = _last(request.headers, "X-Forwarded-Proto") or scheme
    if host is None or scheme not in _PORTS or not path.startswith("/"):
        return None
    return f"{scheme}://{host}{path}{mark}{query}"


def _last(headers: Headers, name: str) -> str | None:
    """Return what the nearest proxy said: a caller can only put something before it."""
    values = headers.getall(name, ())
    return values[-1].rpartition(",")[2].strip() or None if values else None


_NO_URL: Final = Rejected(code="signature_mismatch", detail="nothing says under which URL the provider called")


def _square(request: Request) -> Verified | Rejected:
    """Check Square's HMAC-SHA256 of the notification URL and the body."""
    header = "X-Square-HmacSha256-Signature"
    signature, url = single(request.headers, header), called_url(request)
    if isinstance(signature, Rejected):
        return signature
    if url is None:
        return _NO_URL
    form = Verification(scheme="square", encoding="base64")
    return hmac_over(raw(url) + request.body, signature, form, header, request.keys)


# HubSpot signs the URL with these characters as they are, however they stood in the request line.
_HUBSPOT_PLAIN: Final = re.compile(r"%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


def _hubspot(request: Request) -> Verified | Rejected:
    """Check HubSpot's v3: HMAC-SHA256 of method, URL, body and a time in milliseconds."""
    header, time_header = "X-HubSpot-Signature-v3", "X-HubSpot-Request-Timestamp"
    signature, url = single(request.headers, header), called_url(request)
    if isinstance(signature, Rejected):
        return signature
    stamps = request.headers.getall(time_header, ())
    if len(stamps) != 1:
        return Rejected(code="timestamp_missing", detail=f"the header {time_header} is there {len(stamps)} times")
    stale = fresh(stamps[0][:-3], request.now, request.verification.tolerance)
    if stale is not None or not stamps[0].isascii() or not stamps[0].isdigit():
        return stale or Rejected(code="timestamp_malformed", detail=f"{time_header} is no number of milliseconds")
    if url is None:
        return _NO_URL
    plain = _HUBSPOT_PLAIN.sub(lambda found: chr(int(found[1], 16)), url)
    form = Verification(scheme="hubspot", encoding="base64")
    signed = b"POST" + raw(plain) + request.body + stamps[0].encode()
    return hmac_over(signed, signature, form, header, request.keys)


def _twilio(request: Request) -> Verified | Rejected:
    """Check Twilio's HMAC-SHA1 of the URL and the sorted fields of the form; another body is in the URL as a hash."""
    signature, url = single(request.headers, "X-Twilio-Signature"), called_url(request)
    if isinstance(signature, Rejected):
        return signature
    digest = decode(signature, "base64")
    if digest is None or len(digest) != 20:
        return Rejected(code="signature_malformed", detail="X-Twilio-Signature is no base64 sha1 digest")
    if url is None:
        return _NO_URL
    fields = _twilio_fields(request)
    if isinstance(fields, Rejected):
        return fields
    verdict: Verified | Rejected = _NO_URL
    for spelling in _with_and_without_port(url):
        verdict = match(request.keys, raw(spelling) + fields, "sha1", (digest,))
        if isinstance(verdict, Verified):
            break
    return verdict


def _twilio_fields(request: Request) -> bytes | Rejected:
    """Return what is signed behind the URL: names and values of a form, nothing for a body whose hash is in the URL."""
    hashes = [part[11:] for part in request.target.partition("?")[2].split("&") if part.startswith("bodySHA256=")]
    if hashes:
        given = decode(hashes[0], "hex")
        same = given is not None and hmac.compare_digest(hashlib.sha256(request.body).digest(), given)
        return b"" if same else Rejected(code="signature_mismatch", detail="bodySHA256 is of another body")
    types = request.headers.getall("Content-Type", ())
    if not request.body:
        return b""
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != FORM:
        return Rejected(code="signature_malformed", detail="the body is no form, and bodySHA256 is not in the URL")
    try:
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return Rejected(code="signature_malformed", detail=f"the body is no form of up to {MOST_FIELDS} fields")
    return "".join(name + value for name, value in sorted(set(pairs))).encode("utf-8", "surrogatepass")


def _with_and_without_port(url: str) -> Iterator[str]:
    """Yield the URL as it is, without a port, and with the port of its scheme: Twilio does not always sign the same."""
    yield url
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() else host
    yield f"{scheme}://{bare}{slash}{path}"
    if scheme in _PORTS:
        yield f"{scheme}://{bare}:{_PORTS[scheme]}{slash}{path}"


def signed_token(secret: bytes, token: str) -> bytes:
    """Return the HMAC-SHA256 that proves in a handshake that both sides have the secret."""
    return hmac.digest(secret, token.encode(), "sha256")


def crc_response(secret: bytes, token: str) -> str:
    """Return what X wants to hear."""
    return f"sha256={base64.b64encode(signed_token(secret, token)).decode()}"


CHECKS: Final[Mapping[Scheme, Callable[[Request], Verified | Rejected]]] = {
    "twilio": _twilio,
    "gitlab": partial(_token, "X-Gitlab-Token"),
    "meta": partial(_of_body, "X-Hub-Signature-256", prefix="sha256="),
    "okta": partial(_token, "Authorization"),
    "x": _x,
    "microsoftGraph": _microsoft_graph,
    "zoom": _zoom,
    "paddle": _paddle,
    "square": _square,
    "hubspot": _hubspot,
    "linear": _linear,
    "discord": _discord,
    "pagerduty": _pagerduty,
    "docusign": _docusign,
    "dropbox": partial(_of_body, "X-Dropbox-Signature"),
}

"""What makes an event unique: the key under which the store recognises a duplicate.

Called by `app` after a request has proved itself. Pure. A request without the id that its endpoint asks for gets no
key: it is stored all the same (and counted), since a webhook too many can be dealt with and a lost one cannot.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from kapsel_receiver.signatures import Headers, raw, standard_prefix
from kapsel_store.rows import Idempotency, Scheme

_DOMAIN: Final = b"kapsel/idempotency/v1"
_PROVIDER_HEADERS: Final[dict[Scheme, str]] = {"github": "X-GitHub-Delivery", "shopify": "X-Shopify-Webhook-Id"}
_PROVIDER_FIELDS: Final[dict[Scheme, str]] = {"stripe": "id", "slack": "event_id"}


def key(
    idempotency: Idempotency | None, scheme: Scheme, headers: Headers, body: bytes, body_hash: bytes
) -> bytes | None:
    """Return the 32-byte idempotency key of a request, or None if nothing in it says what makes it unique."""
    match idempotency:
        case None:
            return None
        case Idempotency(source="Header", header=str(name)):
            return _of_header("header", name, headers)
        case Idempotency(source="Content"):
            return encode("content", (body_hash,))
        case _:
            return _of_provider(scheme, headers, body)


def encode(source: str, values: Sequence[bytes]) -> bytes:
    """Hash a source and its values so that no other source or list of values gives the same bytes."""
    digest = hashlib.sha256()
    for part in (_DOMAIN, source.encode(), *values):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _of_header(source: str, name: str, headers: Headers) -> bytes | None:
    values = [value for value in headers.getall(name, ()) if value]
    if not values:
        return None
    return encode(source, (name.lower().encode(), *map(raw, values)))


def _of_provider(scheme: Scheme, headers: Headers, body: bytes) -> bytes | None:
    if scheme == "standardWebhooks":
        # The id that was signed, and no other: who sends a webhook again cannot make it look like a new one.
        return _of_header("provider", f"{standard_prefix(headers)}id", headers)
    if name := _PROVIDER_HEADERS.get(scheme):
        return _of_header("provider", name, headers)
    field = _PROVIDER_FIELDS.get(scheme)
    value = None if field is None else _field(body, field)
    return None if field is None or value is None else encode("provider", (field.encode(), value))


def _field(body: bytes, name: str) -> bytes | None:
    """Return a string member of a JSON object, None if the body is something else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) and value else None

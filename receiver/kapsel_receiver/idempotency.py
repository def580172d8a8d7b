"""What makes an event unique: the key under which the store recognises a duplicate.

Called by `app` after a request has proved itself. Pure. A request without the id that its endpoint asks for gets no
key: it is stored all the same (and counted), since a webhook too many can be dealt with and a lost one cannot.
"""

from kapsel_receiver.proofs import Headers, raw
from kapsel_receiver.signatures import standard_prefix
from kapsel_store import event_names
from kapsel_store.event_names import encode
from kapsel_store.rows import Idempotency, Scheme


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


def _of_header(source: str, name: str, headers: Headers) -> bytes | None:
    values = [value for value in headers.getall(name, ()) if value]
    if not values:
        return None
    return encode(source, (name.lower().encode(), *map(raw, values)))


def _of_provider(scheme: Scheme, headers: Headers, body: bytes) -> bytes | None:
    if scheme == "standardWebhooks":
        # The id that was signed, and no other: who sends a webhook again cannot make it look like a new one.
        return _of_header("provider", f"{standard_prefix(headers)}id", headers)
    match event_names.IDS.get(scheme):
        case event_names.InHeader(name=name):
            return _of_header("provider", name, headers)
        case event_names.InBody() as place:
            value = event_names.member(event_names.document(body), place.path)
            given = None if value is None else value.encode("utf-8", "surrogatepass")
            return None if given is None else encode("provider", (place.dotted.encode(), given))
        case event_names.ButFor(name=name) as counted:
            rest = counted.rest(body)
            return None if rest is None else encode("provider", (name.encode(), rest))
        case None:
            return None

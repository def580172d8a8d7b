"""Acknowledgements: what a destination signs to say that it got a delivery (RFC 9421, an HTTP message signature).

The deliverer reads a response with `offered` and keeps in the leaf the bytes that were signed (the signature base), the
key and the signature; an auditor who has the destination's key from the destination calls `check`. Both go through the
same rules, so that nothing gets into a log that an auditor would refuse:

 1. The response is a success (2xx) and was read to its end.
 2. The signature covers exactly four components, in any order: `"@status"`, `"content-digest"`, `"webhook-id";req` and
    `"content-digest";req`; the digests are one SHA-256 each (RFC 9530).
 3. Of its parameters `created` and `tag` ("kapsel-ack") are there; `alg`, if there, is "ed25519"; `keyid` and `nonce`
    are the destination's own; `expires`, if there, lies after the try. There are no others.
 4. `created` is no further from the time of the try than clocks may differ.
 5. The base, rebuilt from what the leaf says of the exchange, is the base that was signed, byte for byte.
 6. The signature is right, by the one Ed25519 profile of `ed25519`.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from kapsel_verifier import ed25519, strict, structured_fields
from kapsel_verifier.errors import AcknowledgementError, SignatureError
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.structured_fields import Bare, InnerList, Item, Member

TAG: Final = "kapsel-ack"
ALGORITHM: Final = "ed25519"
MAX_BASE_SIZE: Final = 8192  # bytes
MAX_SKEW_S: Final = 300  # seconds between the try and `created`: what clocks of servers are commonly allowed to differ
MAX_OFFERED: Final = 4  # signatures of one response: enough for a destination that changes its key

COMPONENTS: Final = ('"@status"', '"content-digest"', '"webhook-id";req', '"content-digest";req')
_SORTED: Final = sorted(COMPONENTS)
_PARAMETERS: Final[Mapping[str, type]] = {
    "created": int, "expires": int, "nonce": str, "alg": str, "keyid": str, "tag": str,
}  # fmt: skip
_PARAMS: Final = '"@signature-params": '


class Exchange(NamedTuple):
    """What both sides must agree upon: one request and its response."""

    status: int  # HTTP status of the response
    response_digest: bytes  # SHA-256 of the whole body of the response, 32 bytes
    webhook_id: str  # as it was sent
    payload_hash: bytes  # SHA-256 of the body that was sent, 32 bytes
    timestamp: int  # milliseconds since 1970-01-01 UTC: when the try began, by the sender's clock


class Offer(NamedTuple):
    """A signature as a response brought it; its form and its claims are right, no key has judged it yet."""

    base: bytes  # what was signed
    signature: bytes
    created: int  # seconds since 1970-01-01 UTC, by the destination's clock
    key_id: str | None

    def is_by(self, key: bytes) -> bool:
        """Say whether this 32-byte public key made the signature."""
        try:
            ed25519.verify(key, self.base, self.signature, "the acknowledgement's signature")
        except SignatureError:
            return False
        return True


class Acknowledgement(NamedTuple):
    """A signature that was checked: the holder of the key says that it got what the leaf records."""

    key: bytes  # 32 bytes
    created: int  # seconds since 1970-01-01 UTC, by the destination's clock
    key_id: str | None


def digest_field(digest: bytes) -> str:
    """Return a Content-Digest of one SHA-256 (RFC 9530), the only form that counts here."""
    return f"sha-256=:{strict.to_base64(digest)}:"


def offered(fields: Mapping[str, str], exchange: Exchange, max_skew_s: int = MAX_SKEW_S) -> list[Offer]:
    """Return the acknowledgements that a response offers: none if nothing in it is tagged as one.

    `fields` are the headers in lower case, several lines of one joined by a comma and a space. Raises
    AcknowledgementError if something is tagged as one and is not, before any key is asked.
    """
    if "signature-input" not in fields:
        return []
    error = AcknowledgementError
    inputs = structured_fields.dictionary(fields["signature-input"], "the Signature-Input", error)
    tagged = {label: found for label, found in inputs.items() if found.parameters.get("tag") == TAG}
    if not tagged:
        return []
    if len(tagged) > MAX_OFFERED:
        raise error(f"the response has more than {MAX_OFFERED} signatures with the tag {TAG}")
    signatures = structured_fields.dictionary(fields.get("signature", ""), "the Signature", error)
    if fields.get("content-digest", "").strip(" \t") != digest_field(exchange.response_digest):
        raise error("the Content-Digest of the response is missing, or not the one SHA-256 of its body")
    return [_offer(found, signatures.get(label), exchange, max_skew_s) for label, found in tagged.items()]


def check(leaf: Leaf, key: bytes) -> Acknowledgement:
    """Check the leaf's acknowledgement by the destination's 32-byte key, which must not come from the proof.

    Raises AcknowledgementError, also for a leaf without one, or MalformedKeyError.
    """
    error = AcknowledgementError
    base, signature = leaf.acknowledgement_base, leaf.acknowledgement_signature
    if base is None or signature is None or leaf.acknowledgement_key is None:
        raise error("the leaf has no acknowledgement")
    if leaf.response_status is None or leaf.response_digest is None:
        raise error("the leaf has an acknowledgement and no response")
    exchange = Exchange(leaf.response_status, leaf.response_digest, leaf.event_id, leaf.sent, leaf.timestamp)
    offer = _offer(_signed(base), Item(signature, {}), exchange, MAX_SKEW_S)
    if offer.base != base:
        raise error(f"the acknowledgement is of something else: {_difference(base, offer.base)}")
    if leaf.acknowledgement_key != key:
        raise error("the acknowledgement names another key than the one you gave for the destination")
    try:
        ed25519.verify(key, base, signature, "the acknowledgement's signature")
    except SignatureError as wrong:
        raise error(str(wrong)) from None
    return Acknowledgement(key, offer.created, offer.key_id)


def signature_base(exchange: Exchange, parameters: InnerList) -> bytes:
    """Return the bytes that are signed (RFC 9421 section 2.5), the components in the order of the parameters."""
    return _base(exchange, [structured_fields.encode(item) for item in parameters.items], parameters.parameters)


def _base(exchange: Exchange, components: list[str], parameters: Mapping[str, Bare]) -> bytes:
    digest, payload = digest_field(exchange.response_digest), digest_field(exchange.payload_hash)
    values = dict(zip(COMPONENTS, (str(exchange.status), digest, exchange.webhook_id, payload), strict=True))
    lines = [f"{name}: {values[name]}" for name in components]
    written = f"({' '.join(components)}){structured_fields.encode_parameters(parameters)}"
    return "\n".join((*lines, _PARAMS + written)).encode("ascii")


def _offer(parameters: Member, signature: Member | None, exchange: Exchange, max_skew_s: int) -> Offer:
    error = AcknowledgementError
    if not isinstance(parameters, InnerList):
        raise error("the signature's parameters do not begin with a list of components")
    components = [structured_fields.encode(item) for item in parameters.items]
    if sorted(components) != _SORTED:
        raise error(f"the signature does not cover exactly {', '.join(COMPONENTS)}")
    created, key_id = _parameters(parameters.parameters, exchange.timestamp, max_skew_s)
    if not isinstance(signature, Item) or not isinstance(signature.value, bytes):
        raise error("the signature is missing or is no byte sequence")
    if len(signature.value) != ed25519.SIGNATURE_SIZE:
        raise error(f"the signature does not have {ed25519.SIGNATURE_SIZE} bytes")
    if not 200 <= exchange.status <= 299:
        raise error(f"the status {exchange.status} is not a success")
    base = _base(exchange, components, parameters.parameters)
    if len(base) > MAX_BASE_SIZE:
        raise error(f"the signature base is larger than {MAX_BASE_SIZE} bytes")
    return Offer(base, signature.value, created, key_id)


def _parameters(values: Mapping[str, Bare], timestamp: int, max_skew_s: int) -> tuple[int, str | None]:
    """Apply rules 3 and 4; return `created` and `keyid`."""
    error = AcknowledgementError
    for name, value in values.items():
        if name not in _PARAMETERS:
            raise error(f"the signature has the parameter {name}, which it may not have")
        if type(value) is not _PARAMETERS[name]:
            raise error(f"the signature's {name} is not {'an integer' if _PARAMETERS[name] is int else 'a string'}")
    if values.get("tag") != TAG:
        raise error(f"the signature's tag is not {TAG}")
    if values.get("alg", ALGORITHM) != ALGORITHM:
        raise error(f"the signature's alg is not {ALGORITHM}")
    created, expires, key_id = values.get("created"), values.get("expires"), values.get("keyid")
    if not isinstance(created, int):
        raise error("the signature does not say when it was created")
    if abs(created * 1000 - timestamp) > max_skew_s * 1000:
        raise error(f"the signature was created {_apart(created * 1000 - timestamp)} the try")
    if isinstance(expires, int) and expires * 1000 <= timestamp:
        raise error("the signature had expired before the try")
    return created, key_id if isinstance(key_id, str) else None


def _signed(base: bytes) -> InnerList:
    """Return the parameters in the last line of a base, which must be written canonically."""
    error = AcknowledgementError
    try:
        line = base.decode("ascii").rpartition("\n")[2]
    except UnicodeDecodeError:
        raise error("the signature base is not ASCII") from None
    if not line.startswith(_PARAMS):
        raise error("the signature base does not end in its parameters")
    return structured_fields.inner_list(line.removeprefix(_PARAMS), "the last line of the signature base", error)


def _difference(signed: bytes, rebuilt: bytes) -> str:
    """Name the first line in which the base that was signed is not the one that the leaf asks for."""
    for one, other in zip(signed.split(b"\n"), rebuilt.split(b"\n"), strict=False):
        if one != other:
            name = other.partition(b": ")[0].decode("ascii")
            return f"{name} is {strict.shown(one.decode('ascii'))}, the leaf asks for {strict.shown(other.decode())}"
    return "it has another number of lines"


def _apart(milliseconds: int) -> str:
    return f"{abs(milliseconds) // 1000} s {'after' if milliseconds > 0 else 'before'}"

"""Acknowledgements as the deliverer sees them: what is asked for, with which keys, and whether a response brings it.

`targets` makes an `Asked` for each destination that declares acknowledgements, the sender has `judge` look at what came
back. What the signature must look like, and over what, is `kapsel_verifier.acknowledgement`'s: the same rules an
auditor applies. Nothing here does IO; where keys come from a destination's own URL, `directories` fetches them.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from kapsel_store.rows import Acknowledged
from kapsel_verifier import acknowledgement, strict
from kapsel_verifier.acknowledgement import Exchange, Offer
from kapsel_verifier.errors import AcknowledgementError, MalformedKeyError

DIRECTORY_PATH: Final = "/.well-known/http-message-signatures-directory"
DIRECTORY_TYPES: Final = (
    "application/http-message-signatures-directory+json, application/jwk-set+json, application/json"
)
DIRECTORY_KEYS: Final = 16  # Ed25519 keys of one directory; further ones are not read
CONTENT_DIGEST: Final = "content-digest"
FIELDS: Final = ("signature-input", "signature", CONTENT_DIGEST)  # of a response
# What is wanted, in the words of RFC 9421 section 5 and RFC 9530.
WANTED: Final[Mapping[str, str]] = {
    "accept-signature": f"kapsel=({' '.join(acknowledgement.COMPONENTS)});created;"
    f'alg="{acknowledgement.ALGORITHM}";tag="{acknowledgement.TAG}"',
    "want-content-digest": "sha-256=10",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of a destination, and what its signatures may call it."""

    public: bytes
    ids: frozenset[str] = frozenset()  # none: whatever the signature says


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where a destination publishes its keys."""

    url: str
    head: bytes  # the whole request
    request: ClientRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one destination declares: its keys, or where they are."""

    required: bool
    tolerance_s: int
    keys: tuple[Key, ...] = ()
    directory: Directory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of looking for an acknowledgement, with the evidence or with what is wrong."""

    result: Acknowledged
    detail: str = ""  # one sentence for whoever runs the destination
    base: bytes | None = None
    key: bytes | None = None
    signature: bytes | None = None


UNKNOWN_KEY: Final = Judged(result="invalid", detail="the signature names a key that the destination does not publish")


def directory_url(url: URL) -> URL:
    """Return where a destination publishes its keys: at its origin, whatever its path."""
    return url.with_path(DIRECTORY_PATH).with_query(None).with_fragment(None)


def offered(fields: Mapping[str, str], exchange: Exchange, *, whole: bool, tolerance_s: int) -> list[Offer] | Judged:
    """Return the signatures that a successful response offers, or why there is none that counts."""
    try:
        offers = acknowledgement.offered(fields, exchange, tolerance_s)
    except AcknowledgementError as error:
        return Judged(result="invalid", detail=str(error))
    if not offers:
        return Judged(result="missing", detail=f"no signature of the response has the tag {acknowledgement.TAG}")
    if not whole:
        return Judged(result="invalid", detail="the response was too large to be read whole, or broke off")
    return offers


def judge(offers: Sequence[Offer], keys: Sequence[Key]) -> Judged | None:
    """Return what the keys say of the signatures; None if one names a key that is not among them."""
    unknown = False
    for offer in offers:
        candidates = [key for key in keys if not key.ids or offer.key_id is None or offer.key_id in key.ids]
        unknown = unknown or not candidates
        for key in candidates:
            if offer.is_by(key.public):
                return Judged(result="acknowledged", base=offer.base, key=key.public, signature=offer.signature)
    return None if unknown else Judged(result="invalid", detail="no key of the destination has made the signature")


def read_directory(body: bytes) -> tuple[Key, ...]:
    """Read a JSON Web Key Set; raises MalformedKeyError. Keys of other kinds, or for other uses, are passed over."""
    # Not `strict`: a directory may hold members with floats or negative numbers, which are nobody's business here.
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedKeyError("the key directory is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedKeyError("the key directory has no list of keys")
    found = tuple(_key(entry) for entry in entries if _is_for_signatures(entry))[:DIRECTORY_KEYS]
    if not found:
        raise MalformedKeyError("the key directory holds no Ed25519 key")
    return found


def _is_for_signatures(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and (entry.get("kty"), entry.get("crv")) == ("OKP", "Ed25519")
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", "Ed25519") in ("Ed25519", "EdDSA")
    )


def _key(entry: Mapping[str, object]) -> Key:
    x, kid = entry.get("x"), entry.get("kid")
    if not isinstance(x, str) or len(x) != 43:
        raise MalformedKeyError("a key of the directory does not have 32 bytes in base64url")
    public = strict.base64(x.translate(str.maketrans("-_", "+/")) + "=", "a key of the directory", MalformedKeyError)
    names = {thumbprint(public)}
    return Key(public, frozenset(names | {kid} if isinstance(kid, str) else names))


def thumbprint(public: bytes) -> str:
    """Return the JWK thumbprint of a key (RFC 7638), by which a signature may name it."""
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    digest = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

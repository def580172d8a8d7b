"""Acknowledgements as the deliverer sees them: what is asked for, with which keys, and whether a response brings it.

`targets` makes an `Asked` for each destination that declares acknowledgements, the sender has `judge` look at what came
back. What the signature must look like, and over what, is `kapsel_verifier.acknowledgement`'s: the same rules an
auditor applies. Nothing here does IO; where keys come from a destination's own URL, `directories` fetches them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from kapsel_store.rows import Acknowledged
from kapsel_verifier import acknowledgement
from kapsel_verifier.acknowledgement import Exchange, Offer
from kapsel_verifier.errors import AcknowledgementError
from kapsel_verifier.jwks import Key

DIRECTORY_PATH: Final = "/.well-known/http-message-signatures-directory"
DIRECTORY_TYPES: Final = (
    "application/http-message-signatures-directory+json, application/jwk-set+json, application/json"
)
CONTENT_DIGEST: Final = "content-digest"
FIELDS: Final = ("signature-input", "signature", CONTENT_DIGEST)  # of a response
# What is wanted, in the words of RFC 9421 section 5 and RFC 9530.
WANTED: Final[Mapping[str, str]] = {
    "accept-signature": f"kapsel=({' '.join(acknowledgement.COMPONENTS)});created;"
    f'alg="{acknowledgement.ALGORITHM}";tag="{acknowledgement.TAG}"',
    "want-content-digest": "sha-256=10",
}


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

"""What the checks of all schemes are made of: one header, a time that is near, bytes compared in constant time.

Called by `signatures` and `providers`, a scheme at a time. Pure. Signatures are decoded strictly, and whatever is
compared is compared as raw bytes.
"""

import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol
from uuid import UUID

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from kapsel_store.rows import Encoding, HashName, KeyRow, Verification

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


def single(headers: Headers, name: str) -> str | Rejected:
    """Return the only value of a signature header; a second one would leave open which of them was meant."""
    values = headers.getall(name, ())
    if len(values) == 1 and values[0]:
        return values[0]
    if not values or values == [""]:
        return Rejected(code="signature_missing", detail=f"the header {name} is missing")
    return Rejected(code="signature_malformed", detail=f"the header {name} is there {len(values)} times")


def fresh(text: str, now: datetime, tolerance: timedelta) -> Rejected | None:
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


def match(
    keys: Sequence[KeyRow], signed: bytes, algorithm: HashName, signatures: Sequence[bytes]
) -> Verified | Rejected:
    """Check MACs over the signed bytes, of which one by one live key is enough."""
    for key in keys:
        if key.algorithm == "Ed25519":
            continue
        expected = hmac.digest(key.secret, signed, algorithm)
        for signature in signatures:
            if hmac.compare_digest(expected, signature):
                return Verified(key_id=key.id)
    return mismatch()


def mismatch() -> Rejected:
    """Say that nobody who has a key signed this."""
    return Rejected(code="signature_mismatch", detail="no live key of the endpoint made this signature over this body")


def hmac_over(
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
    return match(keys, signed, verification.algorithm, (digest,))


def timestamp(headers: Headers, name: str, now: datetime, tolerance: timedelta) -> bytes | Rejected:
    """Return the only time of a header, which must be near."""
    values = headers.getall(name, ())
    if len(values) != 1:
        return Rejected(code="timestamp_missing", detail=f"the header {name} is there {len(values)} times, not once")
    return fresh(values[0], now, tolerance) or values[0].encode("ascii")


def match_ed25519(keys: Sequence[KeyRow], signed: bytes, signatures: Sequence[bytes]) -> Verified | Rejected:
    """Check Ed25519 signatures against the public halves of keys."""
    for key in keys:
        if key.algorithm != "Ed25519" or key.public is None:
            continue
        if any(is_signed(key.public, signed, signature) for signature in signatures):
            return Verified(key_id=key.id)
    return mismatch()


def is_signed(public: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether the owner of an Ed25519 public key made this signature."""
    try:
        VerifyKey(public).verify(signed, signature)
    except BadSignatureError:
        return False
    return True


def credentials(headers: Headers, scheme: str) -> bytes | Rejected:
    """Return what follows the scheme in the only Authorization header."""
    values = headers.getall("Authorization", ())
    if len(values) != 1:
        return Rejected(code="credentials_missing", detail=f"Authorization is there {len(values)} times, not once")
    name, _, credentials = values[0].partition(" ")
    if name.lower() != scheme or not credentials.strip():
        return Rejected(code="credentials_malformed", detail=f"Authorization does not carry {scheme} credentials")
    return raw(credentials.strip(" "))


def same_credentials(keys: Sequence[KeyRow], given: bytes) -> Verified | Rejected:
    """Compare a secret that was sent with the live ones."""
    for key in keys:
        if hmac.compare_digest(key.secret, given):
            return Verified(key_id=key.id)
    return Rejected(code="credentials_mismatch", detail="no live key of the endpoint has these credentials")

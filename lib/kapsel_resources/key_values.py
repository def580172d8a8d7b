"""What the value of a Secret's entry means as a key: text, Standard Webhooks, Ed25519 seeds and public keys.

The same text means different bytes to different users: Stripe's `whsec_...` is the secret as it stands, that of
Standard Webhooks is base64 behind a prefix. So the use decides, not a guess from the value.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import crypto_sign_seed_keypair

from kapsel_egress import tls
from kapsel_store.rows import Algorithm

LONGEST: Final = 4096
LONGEST_PEM: Final = 262_144
SEED_SIZE: Final = 32
_LINE: Final = re.compile(rb"[!-~]([ -~]*[!-~])?")
_HEX_SEED: Final = re.compile(rb"[0-9a-fA-F]{64}")
_SEED_FORMS: Final = "64 hex digits, base64 of 32 bytes, whsk_<base64>, or whpk_<base64> for a public key"


class KeyValueError(ValueError):
    """A value is no key of its algorithm; the message never shows the value."""

    def __init__(self, wrong: str, allowed: str) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class KeyValue:
    """The halves of a key as the rows keep them."""

    secret: bytes = field(repr=False)
    public: bytes | None = None


def of_seed(seed: bytes) -> KeyValue:
    """Return the Ed25519 key pair of a 32-byte seed."""
    return KeyValue(secret=seed, public=crypto_sign_seed_keypair(seed)[0])


def generate(algorithm: Algorithm, random: bytes) -> KeyValue:
    """Return a new key made of random bytes: as many as `random_size` says."""
    return of_seed(random) if algorithm == "Ed25519" else KeyValue(secret=random)


def random_size(algorithm: Algorithm) -> int:
    """Return how many random bytes a new key is made of: as many as its hash puts out."""
    return 64 if algorithm == "HMAC-SHA512" else 32


def literal(value: bytes) -> KeyValue:
    """Read a shared secret, a token or a password as it stands."""
    return KeyValue(secret=_trimmed(value))


def line(value: bytes) -> KeyValue:
    """Read what goes into a header or a form as it stands: one line of printable ASCII."""
    text = _trimmed(value)
    if not _LINE.fullmatch(text):
        raise KeyValueError("the value holds what no header may hold", "one line of printable ASCII")
    return KeyValue(secret=text)


def authorities(value: bytes) -> KeyValue:
    """Read certificates of authorities in PEM."""
    return _pem(value, tls.authorities, "one certificate or more in PEM")


def certificate(value: bytes) -> KeyValue:
    """Read a private key and its certificates in PEM."""
    return _pem(value, tls.certificate, "in PEM, a key without a password and the certificates that belong to it")


def _pem(value: bytes, check: Callable[[bytes], None], allowed: str) -> KeyValue:
    if len(value) > LONGEST_PEM:
        raise KeyValueError(f"the value has {len(value)} bytes", f"up to {LONGEST_PEM} bytes")
    try:
        check(value)
    except ValueError as error:
        raise KeyValueError(str(error), allowed) from None
    return KeyValue(secret=value)


def standard(value: bytes) -> KeyValue:
    """Read a shared secret as Standard Webhooks does: whsec_<base64>, or anything else as it stands."""
    text = _trimmed(value)
    if not text.startswith(b"whsec_"):
        return KeyValue(secret=text)
    secret = _base64(text.removeprefix(b"whsec_"), "whsec_<base64>")
    if not secret:
        raise KeyValueError("there is nothing behind whsec_", "whsec_<base64>")
    return KeyValue(secret=secret)


def shared_text(secret: bytes) -> str:
    """Write a shared secret as `standard` reads it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def public_text(public: bytes) -> str:
    """Write a public key as `ed25519` reads it."""
    return f"whpk_{base64.b64encode(public).decode()}"


def ed25519(value: bytes) -> KeyValue:
    """Read an Ed25519 seed or public key."""
    text = _trimmed(value)
    if _HEX_SEED.fullmatch(text):
        return of_seed(bytes.fromhex(text.decode()))
    if text.startswith(b"whpk_"):
        public = _base64(text.removeprefix(b"whpk_"), _SEED_FORMS)
        if len(public) != SEED_SIZE:
            raise KeyValueError(f"the public key has {len(public)} bytes", "a public key of 32 bytes")
        return KeyValue(secret=b"", public=public)
    seed = _base64(text.removeprefix(b"whsk_"), _SEED_FORMS)
    if len(seed) == 2 * SEED_SIZE:  # libsodium's form: the seed, and the public key behind it
        pair = of_seed(seed[:SEED_SIZE])
        if pair.public != seed[SEED_SIZE:]:
            raise KeyValueError("the public half does not belong to the seed", _SEED_FORMS)
        return pair
    if len(seed) != SEED_SIZE:
        raise KeyValueError(f"the key has {len(seed)} bytes", _SEED_FORMS)
    return of_seed(seed)


def _trimmed(value: bytes) -> bytes:
    trimmed = value.rstrip(b"\r\n")  # what editors and `kubectl create secret --from-file` leave behind
    if not trimmed:
        raise KeyValueError("the value is empty", "a secret")
    if len(trimmed) > LONGEST:
        raise KeyValueError(f"the value has {len(trimmed)} bytes", f"up to {LONGEST} bytes")
    return trimmed


def _base64(text: bytes, allowed: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyValueError("the value is not base64", allowed) from None
    if base64.b64encode(decoded) != text:  # the library lets surplus padding and stray bits pass
        raise KeyValueError("the value is not base64 as it should be written", allowed)
    return decoded

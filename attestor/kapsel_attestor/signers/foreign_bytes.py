"""What services that hold keys write bytes as: base64, and public keys in DER."""

import base64
import binascii

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_verifier.ed25519 import PUBLIC_KEY_SIZE
from kapsel_verifier.sth import SPKI


def decoded(text: str, what: str) -> bytes:
    """Return what base64 says; raise SignerAwayError if it is none, for it was then spoilt on its way."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignerAwayError(f"{what} did not come as base64") from None


def public_key(text: str, what: str) -> bytes:
    """Return the raw Ed25519 key of DER in base64; raise SigningError for a key of another kind."""
    encoded = decoded(text, what)
    if not encoded.startswith(SPKI) or len(encoded) != len(SPKI) + PUBLIC_KEY_SIZE:
        raise SigningError(f"{what} is no Ed25519 key")
    return encoded.removeprefix(SPKI)

"""Ed25519 in the one profile that counts here: what libsodium's crypto_sign_verify_detached accepts.

RFC 8032 leaves corner cases open, and a log's owner could craft keys and signatures on which verifiers disagree.
docs/proof-format.md writes the profile down, tests/unit/verifier/test_ed25519.py holds libsodium to it.
"""

from typing import Final

from kapsel_verifier.errors import MalformedKeyError, SignatureError

PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64


def verify(public_key: bytes, message: bytes, signature: bytes, what: str) -> None:
    """Check a 64-byte signature over the message by a 32-byte key.

    Raises SignatureError with a message that begins with `what`, or MalformedKeyError.
    """
    # Imported at the first signature: loading libsodium is half of the start-up of the command line.
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    if len(public_key) != PUBLIC_KEY_SIZE:
        raise MalformedKeyError(f"an Ed25519 public key has {PUBLIC_KEY_SIZE} bytes, this one has {len(public_key)}")
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureError(f"{what} does not have {SIGNATURE_SIZE} bytes")
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        raise SignatureError(f"{what} is wrong") from None

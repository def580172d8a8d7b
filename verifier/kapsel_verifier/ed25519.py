"""Ed25519 in the one profile that counts here: what libsodium's crypto_sign_verify_detached accepts.

RFC 8032 leaves corner cases open, and a log's owner could craft keys and signatures on which verifiers disagree.
docs/proof-format.md writes the profile down, tests/unit/verifier/test_ed25519.py holds libsodium to it, and
`pure_ed25519`, which does the same, more slowly, where pynacl is not installed.
"""

from typing import Final

from kapsel_verifier.errors import MalformedKeyError, SignatureError

PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64


def verify(public_key: bytes, message: bytes, signature: bytes, what: str) -> None:
    """Check a 64-byte signature over the message by a 32-byte key.

    Raises SignatureError with a message that begins with `what`, or MalformedKeyError.
    """
    if len(public_key) != PUBLIC_KEY_SIZE:
        raise MalformedKeyError(f"an Ed25519 public key has {PUBLIC_KEY_SIZE} bytes, this one has {len(public_key)}")
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureError(f"{what} does not have {SIGNATURE_SIZE} bytes")
    if not _is_valid(public_key, message, signature):
        raise SignatureError(f"{what} is wrong")


def implementation() -> str:
    """Say what checks the signatures here, for people who want to know."""
    return "libsodium" if _libsodium() else "Python"


def _is_valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if not _libsodium():
        from kapsel_verifier import pure_ed25519

        return pure_ed25519.is_valid(public_key, message, signature)
    from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # compiled

    signed = signature + message
    opened, length = ffi.new("unsigned char[]", len(signed)), ffi.new("unsigned long long *")
    return bool(lib.crypto_sign_open(opened, length, signed, len(signed), public_key) == 0)


def _libsodium() -> bool:
    # The extension module itself, at the first signature: `nacl.bindings` would load all that libsodium can do, which
    # is a quarter of the time of the command line.
    try:
        from nacl._sodium import lib
    except ImportError:
        return False
    return bool(lib.sodium_init() >= 0)

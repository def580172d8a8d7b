"""Key directories of destinations: JSON Web Key Sets (RFC 7517) with the Ed25519 keys that sign acknowledgements.

The deliverer fetches one from a destination's well-known URL, an auditor gives kapsel-verify the same file. Either has
it from the destination itself, never from a proof.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple, NoReturn

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedKeyError, TooLargeError

MAX_DIRECTORY_SIZE: Final = 262_144  # bytes
MAX_KEYS: Final = 16  # Ed25519 keys of one directory; further ones are not read


class Key(NamedTuple):
    """A public key of a destination, and what its signatures may call it."""

    public: bytes
    ids: frozenset[str] = frozenset()  # none: whatever the signature says


def parse(data: bytes) -> tuple[Key, ...]:
    """Read a JSON Web Key Set; keys of other kinds, or for other uses, are passed over.

    Raises MalformedKeyError, also if no key is left, or TooLargeError (beyond 256 KiB).
    """
    if len(data) > MAX_DIRECTORY_SIZE:
        raise TooLargeError("the key directory", MAX_DIRECTORY_SIZE)
    # Not `strict`: a directory may hold members with floats or negative numbers, which are nobody's business here.
    try:
        # As floats, for Python alone refuses integers of many digits.
        document = json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=float)
    except (ValueError, RecursionError):
        raise MalformedKeyError("the key directory is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedKeyError("the key directory has no list of keys")
    found = tuple(_key(entry) for entry in entries if _is_for_signatures(entry))[:MAX_KEYS]
    if not found:
        raise MalformedKeyError("the key directory holds no Ed25519 key")
    return found


def thumbprint(public: bytes) -> str:
    """Return the JWK thumbprint of a key (RFC 7638), by which a signature may name it."""
    return strict.to_base64url(
        sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{strict.to_base64url(public)}"}}'.encode()).digest()
    )


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


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

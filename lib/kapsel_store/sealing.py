"""Seals secrets before they enter Postgres: a dump of the database alone opens none of them.

NaCl secretbox (XSalsa20-Poly1305, https://nacl.cr.yp.to/secretbox.html) with a key that processes read from a file.
Sealed bytes are `key id (4) || nonce (24) || box`; the key id is the first 4 bytes of SHA-256 of the key, so that
several keys can be at hand while secrets are sealed anew.
"""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from kapsel_store.errors import SealingError

_ID_SIZE = 4


class SealingKeys:
    """The keys at hand: the first one seals, all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise SealingError("no sealing key was given")
        if any(len(key) != SecretBox.KEY_SIZE for key in keys):
            raise SealingError(f"a sealing key has {SecretBox.KEY_SIZE} bytes")
        self._boxes = {_key_id(key): SecretBox(key) for key in keys}
        self._first = _key_id(keys[0])
        self._digest_key = keys[0]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read one key a line, 64 hexadecimal digits each; raise SealingError if that is not what the file holds."""
        try:
            lines = path.read_text(encoding="ascii").split()
            return cls([bytes.fromhex(line) for line in lines])
        except (OSError, ValueError) as error:
            raise SealingError(
                f"{path} cannot be read as sealing keys: one key a line, 64 hexadecimal digits"
            ) from error

    def seal(self, secret: bytes) -> bytes:
        """Encrypt under the first key, with a fresh nonce."""
        return self._first + bytes(self._boxes[self._first].encrypt(secret))

    def open(self, sealed: bytes) -> bytes:
        """Decrypt; raise SealingError if the key is not at hand or the bytes were changed."""
        box = self._boxes.get(sealed[:_ID_SIZE])
        if box is None:
            raise SealingError(f"sealed with key {sealed[:_ID_SIZE].hex()}, which is not among the sealing keys")
        try:
            return box.decrypt(sealed[_ID_SIZE:])
        except CryptoError as error:
            raise SealingError("a sealed secret was changed or cut short") from error

    def digest(self, content: bytes) -> bytes:
        """Return 32 bytes that tell contents apart and tell nothing to who has no sealing key."""
        return hmac.digest(self._digest_key, b"kapsel-digest\0" + content, "sha256")


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_ID_SIZE]

"""Keys whose seed this process sees: sealed in the database, or in a file that only the attestor has."""

from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from kapsel_attestor.errors import SigningError
from kapsel_resources import key_values
from kapsel_resources.key_values import KeyValueError
from kapsel_store.key_backends import FileKey

_LONGEST: Final = 4096  # bytes of a file


class SeedBackend:
    """A seed in memory."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)

    def public_key(self) -> bytes:
        return bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


class FileBackend:
    """A seed in a file, read for each use: it is not kept longer than it is needed, and may be replaced on disk."""

    def __init__(self, where: FileKey) -> None:
        self._where = where

    def public_key(self) -> bytes:
        return self._open().public_key()

    def sign(self, message: bytes) -> bytes:
        return self._open().sign(message)

    def _open(self) -> SeedBackend:
        try:
            with Path(self._where.path).open("rb") as file:
                content = file.read(_LONGEST)
        except OSError as error:
            raise SigningError(f"{self._where} cannot be read: {error.strerror}; mount it for the attestor") from error
        try:
            value = key_values.ed25519(content)
        except KeyValueError as error:
            raise SigningError(f"{self._where} holds no key: {error.wrong}; allowed: {error.allowed}") from None
        if not value.secret:
            raise SigningError(f"{self._where} holds a public key, which cannot sign")
        return SeedBackend(value.secret)

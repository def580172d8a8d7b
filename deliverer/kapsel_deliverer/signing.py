"""What goes out on a delivery besides the body: Standard Webhooks headers, signed with every live key, and our own.

The sender builds one `Signer` for each destination and generation and asks it once a try. While a key is rotated its
old and its new version are both live and both sign, so the destination may change over whenever it likes.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import nacl.signing

from kapsel_store.rows import KeyRow

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
ATTEMPT: Final = "kapsel-attempt"
CORRELATION_ID: Final = "x-correlation-id"
CHECKPOINT: Final = "kapsel-checkpoint"

CHECKPOINT_LIMIT: Final = 1024

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of a key, ready to sign."""

    not_before: datetime
    not_after: datetime | None
    scheme: str
    sign: Sign

    def is_live(self, now: datetime) -> bool:
        return self.not_before <= now and (self.not_after is None or now < self.not_after)


class Signer:
    """Signs for one destination with those versions of its key that are live."""

    def __init__(self, keys: Iterable[KeyRow]) -> None:
        newest_first = sorted(keys, key=lambda key: key.version, reverse=True)
        self._versions = [version for key in newest_first if (version := _version(key)) is not None]

    def sign(self, event_id: str, timestamp: int, body: bytes, now: datetime) -> str | None:
        """Return the value of webhook-signature, one signature for each live version; None if there is none."""
        message = b"%b.%d.%b" % (event_id.encode(), timestamp, body)
        made = [
            f"{version.scheme},{base64.b64encode(version.sign(message)).decode()}"
            for version in self._versions
            if version.is_live(now)
        ]
        return " ".join(made) or None


def _version(key: KeyRow) -> _Version | None:
    """Return what signs by this version; None if it cannot: only its public half is known, or v1 has no such hash."""
    sign: Sign
    if key.algorithm == "Ed25519" and key.secret:
        scheme, sign = "v1a", _ed25519(key.secret)
    elif key.algorithm == "HMAC-SHA256":
        scheme, sign = "v1", _hmac_sha256(key.secret)
    else:
        return None
    return _Version(key.not_before, key.not_after, scheme, sign)


def _hmac_sha256(secret: bytes) -> Sign:
    keyed = hmac.new(secret, digestmod="sha256")  # what depends on the key alone is worked out once

    def sign(message: bytes) -> bytes:
        mac = keyed.copy()
        mac.update(message)
        return mac.digest()

    return sign


def _ed25519(seed: bytes) -> Sign:
    signing_key = nacl.signing.SigningKey(seed)
    return lambda message: signing_key.sign(message).signature


def signature_digest(headers: Mapping[str, str]) -> bytes:
    """Return the SHA-256 that an attempt records of the signature headers as sent.

    The bytes are the three lines `webhook-id: VALUE`, `webhook-timestamp: VALUE` and `webhook-signature: VALUE`, in
    this order, names in lower case, values as sent in ASCII, each line ended by one LF.
    """
    lines = f"{ID}: {headers[ID]}\n{TIMESTAMP}: {headers[TIMESTAMP]}\n{SIGNATURE}: {headers[SIGNATURE]}\n"
    return hashlib.sha256(lines.encode("ascii")).digest()


def checkpoint_header(checkpoint: str) -> str | None:
    """Return a checkpoint as a header value, the base64 of the note; None if even its first signature does not fit.

    Further signature lines are left out from the end until it fits: a note with fewer signatures is still a note.
    """
    text, _, signatures = checkpoint.partition("\n\n")
    lines = signatures.splitlines(keepends=True)
    while lines:
        value = base64.b64encode(f"{text}\n\n{''.join(lines)}".encode())
        if len(value) < CHECKPOINT_LIMIT:
            return value.decode()
        lines.pop()
    return None

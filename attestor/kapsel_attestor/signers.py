"""Who signs the heads of a log: the newest live version of its SigningKey.

The publisher asks for the signer before every head, so a rotated key takes effect with the next one. A signer is two
things, the public key under the log's name and `sign(bytes) -> 64 bytes`; what it returns is checked before it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from nacl.signing import SigningKey

from kapsel_attestor.errors import RefusedError
from kapsel_store.rows import Configuration, KeyRow, LogRow
from kapsel_verifier.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that auditors pin, and the way to its signature."""

    key: VerifierKey
    sign: Callable[[bytes], bytes]


def signer_of(configuration: Configuration, log: LogRow, now: datetime) -> Signer:
    """Return the signer of a log; raise RefusedError if there is no live key that can sign."""
    live = [key for key in configuration.keys if _signs(key, log, now)]
    if not live:
        raise RefusedError(
            f"the log {log.origin} has no key to sign with: the SigningKey {log.namespace}/{log.key_name} needs a live "
            f"version with algorithm Ed25519 and its private half"
        )
    signing = SigningKey(max(live, key=lambda key: key.version).secret)
    return Signer(VerifierKey(log.origin, bytes(signing.verify_key)), lambda message: signing.sign(message).signature)


def _signs(key: KeyRow, log: LogRow, now: datetime) -> bool:
    named = (key.namespace, key.name, key.algorithm) == (log.namespace, log.key_name, "Ed25519")
    return named and len(key.secret) == 32 and key.not_before <= now and (key.not_after is None or now < key.not_after)

"""The way to one private key, whoever holds it: the protocol, and which module speaks it for which row.

A backend blocks, so `gate` calls it from a thread and bounds how long it may take. It raises SignerAwayError for
what passes by itself, and SigningError for what a person has to put right; nobody believes its signatures, they are
verified.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kapsel_attestor.signers.aws_kms import AwsBackend
from kapsel_attestor.signers.google_kms import GoogleBackend
from kapsel_attestor.signers.pkcs11_token import TokenBackend
from kapsel_attestor.signers.seeds import FileBackend, SeedBackend
from kapsel_attestor.signers.vault import VaultBackend
from kapsel_store.key_backends import AwsKey, FileKey, GoogleKey, Pkcs11Key, VaultKey
from kapsel_store.rows import KeyRow


class Backend(Protocol):
    """One key that can be asked for its public half and for signatures."""

    def public_key(self) -> bytes:
        """Return the 32 bytes of the public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the pure Ed25519 signature over a message."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a pod is given to prove who it is."""

    service_account: Path = Path(
        "/var/run/secrets/kubernetes.io/serviceaccount"
    )  # directory with the token that Vault's Kubernetes auth method takes
    aws_token_file: Path | None = None  # what STS takes for a role
    google_metadata: str = "http://metadata.google.internal"
    hosts: frozenset[str] = frozenset()  # other than the providers' own, to which it may be shown


def backend_of(row: KeyRow, identity: Identity) -> Backend:
    """Return the way to the private half of a row; nothing is asked yet."""
    opens: Mapping[str, str] = json.loads(row.secret) if row.backend is not None and row.secret else {}
    match row.backend:
        case None:
            return SeedBackend(row.secret)
        case FileKey():
            return FileBackend(row.backend)
        case Pkcs11Key():
            return TokenBackend(row.backend, opens["pin"])
        case VaultKey():
            return VaultBackend(row.backend, opens, identity.service_account / "token", identity.hosts)
        case AwsKey():
            return AwsBackend(row.backend, opens, identity.aws_token_file, identity.hosts)
        case GoogleKey():
            return GoogleBackend(row.backend, opens.get("serviceAccount"), identity.google_metadata, identity.hosts)

"""Where a key lives that kapsel does not hold: a file of the pod, an HSM, Vault, AWS, Google.

The plan makes these from SigningKeys, the configuration carries them beside the row of the key, and the attestor opens
them. They describe and never open: what opens the door is `KeyRow.secret`, which is sealed.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKey:
    """A seed in a file that is mounted for the attestor."""

    path: str
    kind: Literal["File"] = "File"

    def __str__(self) -> str:
        return f"the file {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Key:
    """A key pair in a token that a PKCS#11 module reaches. Secret: the PIN of the user, as `pin`."""

    module: str  # path of the shared library
    token_label: str
    label: str | None = None  # CKA_LABEL; this, the id or both
    id: str | None = None  # CKA_ID in hex
    kind: Literal["PKCS11"] = "PKCS11"

    def __str__(self) -> str:
        return f"the key {self.label or self.id} of the PKCS#11 token {self.token_label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultKey:
    """One version of a key of Vault's transit engine. Secret: `token`, unless there is a role, and `ca`, if given."""

    address: str  # https://vault.example.com:8200
    mount: str
    key: str
    version: int
    namespace: str | None = None
    role: str | None = None  # log in with the service account of the pod
    role_mount: str | None = None  # where that method of logging in is mounted
    kind: Literal["Vault"] = "Vault"

    def __str__(self) -> str:
        return f"version {self.version} of {self.mount}/{self.key} in the Vault at {self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKey:
    """A key of AWS KMS. Secret: `accessKeyId`, `secretAccessKey` and perhaps `sessionToken`, unless there is a role."""

    key_id: str  # id or ARN
    region: str
    endpoint: str
    role_arn: str | None = None  # assumed with the token file of the pod
    role_endpoint: str | None = None
    kind: Literal["AWSKMS"] = "AWSKMS"

    def __str__(self) -> str:
        return f"the key {self.key_id} of AWS KMS in {self.region}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleKey:
    """One version of a key of Google Cloud KMS. Secret: `serviceAccount`, the JSON of its key; none: ask the metadata
    server."""

    name: str  # projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V
    endpoint: str
    kind: Literal["GoogleKMS"] = "GoogleKMS"

    def __str__(self) -> str:
        return f"{self.name} of Google Cloud KMS"


KeyBackend = FileKey | Pkcs11Key | VaultKey | AwsKey | GoogleKey

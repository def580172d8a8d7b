"""Where the key of a log is when kapsel never holds it: the members of a SigningKey, one for each source.

Each lists the versions that are live. With two, every head is signed by both: that is a rotation, as two entries of a
Secret are. The last one stays.
"""

from typing import Annotated, Final

from pydantic import Field, model_validator

from kapsel_resources.kinds.model import (
    ARN,
    AWS_KEY,
    ENTRY,
    FILE_PATH,
    GOOGLE_KEY_VERSION,
    HEX_ID,
    HTTPS,
    REGION,
    SUBDOMAIN,
    TEXT,
    VAULT_PATH,
    Model,
    broken,
    unique,
)
from kapsel_resources.rules import Rule, each_once
from kapsel_store.key_backends import AwsKey, FileKey, GoogleKey, KeyBackend, Pkcs11Key, VaultKey

_VERSIONS: Final = 8  # live ones; a rotation has two
_URL: Final = 256
FilePath = Annotated[str, Field(max_length=512, pattern=FILE_PATH)]


class SecretEntry(Model):
    """One entry of a core Secret of the same namespace."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Secret, in the same namespace.")
    key: str = Field(min_length=1, max_length=253, pattern=ENTRY, description="The entry.")


class SecretName(Model):
    """A core Secret of the same namespace, with entries of known names."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Secret, in the same namespace.")


class FileSource(Model):
    """Seeds in files of the attestor's own: they never enter the database."""

    RULES = (each_once("paths", "file"),)

    paths: tuple[FilePath, ...] = Field(
        strict=False,
        min_length=1,
        max_length=_VERSIONS,
        description=(
            "Files that each hold one seed, as an entry of a Secret would: 64 hex digits, base64 or whsk_<base64>. "
            "In a cluster, mount them into the container attestor with the Relay's deliverer.podTemplate."
        ),
    )

    @model_validator(mode="after")
    def _each_once(self) -> "FileSource":
        unique(self.paths, "file", "paths")
        return self

    def backends(self) -> tuple[KeyBackend, ...]:
        """Return what the attestor opens, one for each version."""
        return tuple(FileKey(path=path) for path in self.paths)

    def secrets(self) -> dict[str, SecretEntry]:
        """Return the entries that open the way to the key, by what they are."""
        return {}


class TokenKey(Model):
    """One key pair in a token."""

    RULES = (Rule("has(self.label) || has(self.id)", "the key has neither label nor id", "label"),)

    label: str | None = Field(
        default=None, min_length=1, max_length=256, pattern=TEXT, description="Its label (CKA_LABEL)."
    )
    id: str | None = Field(default=None, max_length=64, pattern=HEX_ID, description="Its id (CKA_ID), in hex.")

    def __str__(self) -> str:
        return " ".join(part for part in (self.label, self.id and f"({self.id})") if part)

    @model_validator(mode="after")
    def _named(self) -> "TokenKey":
        if self.label is None and self.id is None:
            broken("the key has neither label nor id", "its label, its id or both", "label")
        return self


class Pkcs11Source(Model):
    """A token behind a PKCS#11 module: an HSM, a smart card, SoftHSM."""

    RULES = (each_once("keys", "key"),)

    module: FilePath = Field(
        description=(
            "The module, as a file for the attestor: /usr/lib/softhsm/libsofthsm2.so. The image has none: mount it "
            "into the container attestor with the Relay's deliverer.podTemplate."
        ),
    )
    token_label: str = Field(min_length=1, max_length=32, pattern=TEXT, description="The label of the token.")
    keys: tuple[TokenKey, ...] = Field(
        strict=False,
        min_length=1,
        max_length=_VERSIONS,
        description="The Ed25519 key pairs that sign; several of them are a rotation.",
    )
    pin_secret_ref: SecretEntry = Field(description="The entry that holds the PIN of the token's user.")

    @model_validator(mode="after")
    def _each_once(self) -> "Pkcs11Source":
        unique((str(key) for key in self.keys), "key", "keys")
        return self

    def backends(self) -> tuple[KeyBackend, ...]:
        """Return what the attestor opens, one for each version."""
        return tuple(
            Pkcs11Key(module=self.module, token_label=self.token_label, label=key.label, id=key.id) for key in self.keys
        )

    def secrets(self) -> dict[str, SecretEntry]:
        """Return the entries that open the way to the key, by what they are."""
        return {"pin": self.pin_secret_ref}


class VaultRole(Model):
    """Vault's Kubernetes auth method: the pod logs in with its service account."""

    role: str = Field(min_length=1, max_length=128, pattern=VAULT_PATH, description="The role to log in as.")
    mount: str = Field(
        default="kubernetes", min_length=1, max_length=128, pattern=VAULT_PATH, description="Where it is mounted."
    )


class VaultSource(Model):
    """The transit engine of HashiCorp Vault or OpenBao, with a key of type ed25519."""

    RULES = (
        Rule(
            "has(self.tokenSecretRef) != has(self.kubernetes)",
            "exactly one of: tokenSecretRef, kubernetes",
            "tokenSecretRef",
        ),
        each_once("versions", "version"),
    )

    address: str = Field(
        max_length=_URL, pattern=HTTPS, description="URL of the server, such as https://vault.example.com:8200."
    )
    namespace: str | None = Field(
        default=None,
        max_length=128,
        pattern=VAULT_PATH,
        description="The namespace of Vault Enterprise, if it has any.",
    )
    mount: str = Field(
        default="transit", min_length=1, max_length=128, pattern=VAULT_PATH, description="Where transit is mounted."
    )
    key: str = Field(min_length=1, max_length=128, pattern=VAULT_PATH, description="The name of the key.")
    versions: tuple[Annotated[int, Field(ge=1, le=2**31 - 1)], ...] = Field(
        strict=False,
        min_length=1,
        max_length=_VERSIONS,
        description=(
            "The versions of the key that sign. They are named, so that rotating the key in Vault changes nothing here "
            "before you say so; several of them are a rotation."
        ),
    )
    token_secret_ref: SecretEntry | None = Field(
        default=None, description="The entry that holds a token with the right to update <mount>/sign/<key>."
    )
    kubernetes: VaultRole | None = Field(
        default=None,
        description="Instead of a token: log in with the service account of the pod. In a cluster alone, "
        "and to a host in KAPSEL_ATTESTOR_IDENTITY_HOSTS.",
    )
    ca_secret_ref: SecretEntry | None = Field(
        default=None, description="The entry that holds the authority of the server, in PEM. Default: the system's."
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> "VaultSource":
        if (self.token_secret_ref is None) == (self.kubernetes is None):
            broken("exactly one of: tokenSecretRef, kubernetes", "one of both", "tokenSecretRef")
        unique(self.versions, "version", "versions")
        return self

    def backends(self) -> tuple[KeyBackend, ...]:
        """Return what the attestor opens, one for each version."""
        login = self.kubernetes
        return tuple(
            VaultKey(
                address=self.address.rstrip("/"),
                mount=self.mount,
                key=self.key,
                version=version,
                namespace=self.namespace,
                role=None if login is None else login.role,
                role_mount=None if login is None else login.mount,
            )
            for version in self.versions
        )

    def secrets(self) -> dict[str, SecretEntry]:
        """Return the entries that open the way to the key, by what they are."""
        found = {"token": self.token_secret_ref, "ca": self.ca_secret_ref}
        return {name: entry for name, entry in found.items() if entry is not None}


class AwsSource(Model):
    """AWS KMS with keys of the spec ECC_NIST_EDWARDS25519."""

    RULES = (
        Rule(
            "has(self.credentialsSecretRef) != has(self.roleARN)",
            "exactly one of: credentialsSecretRef, roleARN",
            "credentialsSecretRef",
        ),
        each_once("keyIds", "key"),
    )

    key_ids: tuple[Annotated[str, Field(max_length=256, pattern=AWS_KEY)], ...] = Field(
        strict=False,
        min_length=1,
        max_length=_VERSIONS,
        description="The keys that sign, by id or ARN and never by alias; several of them are a rotation.",
    )
    region: str = Field(max_length=32, pattern=REGION, description="Their region, such as eu-central-1.")
    endpoint: str | None = Field(
        default=None,
        max_length=_URL,
        pattern=HTTPS,
        description="URL of KMS, for a VPC endpoint. Default: https://kms.<region>.amazonaws.com.",
    )
    credentials_secret_ref: SecretName | None = Field(
        default=None, description="The Secret with accessKeyId and secretAccessKey, and perhaps sessionToken."
    )
    role_arn: str | None = Field(
        default=None,
        alias="roleARN",
        max_length=256,
        pattern=ARN,
        description=(
            "Instead of credentials: the role that the pod assumes with the token that EKS mounts (IAM roles for "
            "service accounts)."
        ),
    )
    sts_endpoint: str | None = Field(
        default=None,
        max_length=_URL,
        pattern=HTTPS,
        description="URL of STS, where the role is assumed. Default: https://sts.<region>.amazonaws.com.",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> "AwsSource":
        if (self.credentials_secret_ref is None) == (self.role_arn is None):
            broken("exactly one of: credentialsSecretRef, roleARN", "one of both", "credentialsSecretRef")
        unique(self.key_ids, "key", "keyIds")
        return self

    def backends(self) -> tuple[KeyBackend, ...]:
        """Return what the attestor opens, one for each version."""
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        sts = self.sts_endpoint or f"https://sts.{self.region}.{domain}"
        return tuple(
            AwsKey(
                key_id=key_id,
                region=self.region,
                endpoint=(self.endpoint or f"https://kms.{self.region}.{domain}").rstrip("/"),
                role_arn=self.role_arn,
                role_endpoint=None if self.role_arn is None else sts.rstrip("/"),
            )
            for key_id in self.key_ids
        )

    def secrets(self) -> dict[str, SecretEntry]:
        """Return the entries that open the way to the key, by what they are; what is optional is `optional`."""
        if self.credentials_secret_ref is None:
            return {}
        name = self.credentials_secret_ref.name
        return {
            entry: SecretEntry(name=name, key=entry) for entry in ("accessKeyId", "secretAccessKey", "sessionToken")
        }


class GoogleSource(Model):
    """Google Cloud KMS with key versions of the algorithm EC_SIGN_ED25519."""

    RULES = (each_once("cryptoKeyVersions", "version"),)

    crypto_key_versions: tuple[Annotated[str, Field(max_length=512, pattern=GOOGLE_KEY_VERSION)], ...] = Field(
        strict=False,
        min_length=1,
        max_length=_VERSIONS,
        description=(
            "The versions that sign: projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1; several of "
            "them are a rotation."
        ),
    )
    endpoint: str | None = Field(
        default=None,
        max_length=_URL,
        pattern=HTTPS,
        description="URL of the service. Default: https://cloudkms.googleapis.com.",
    )
    credentials_secret_ref: SecretEntry | None = Field(
        default=None,
        description=(
            "The entry that holds the JSON key of a service account. Without it the metadata server is asked, as GKE "
            "workload identity has it."
        ),
    )

    @model_validator(mode="after")
    def _each_once(self) -> "GoogleSource":
        unique(self.crypto_key_versions, "version", "cryptoKeyVersions")
        return self

    def backends(self) -> tuple[KeyBackend, ...]:
        """Return what the attestor opens, one for each version."""
        endpoint = (self.endpoint or "https://cloudkms.googleapis.com").rstrip("/")
        return tuple(GoogleKey(name=name, endpoint=endpoint) for name in self.crypto_key_versions)

    def secrets(self) -> dict[str, SecretEntry]:
        """Return the entries that open the way to the key, by what they are."""
        return {} if self.credentials_secret_ref is None else {"serviceAccount": self.credentials_secret_ref}


Source = FileSource | Pkcs11Source | VaultSource | AwsSource | GoogleSource
ONE_LINE: Final = frozenset({"token", "accessKeyId", "secretAccessKey", "sessionToken", "pin"})
OPTIONAL: Final = frozenset({"sessionToken"})  # entries that a Secret need not have

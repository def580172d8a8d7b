"""The settings of the attestor."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from kapsel_runtime.settings import DataPlaneSettings

_NAMESPACED = r"^[a-z0-9][-a-z0-9]*/[a-z0-9][-.a-z0-9]*$"
_HOSTS = r"^[-._:a-zA-Z0-9]+(,[-._:a-zA-Z0-9]+)*$"


def _api_server() -> str | None:
    """Return where Kubernetes says that its API is, in variables that every container has."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    if host is None:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _aws_token_file() -> Path | None:
    """Return where EKS says that the token of the pod is, in a variable that it sets itself."""
    named = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    return Path(named) if named else None


class AttestorSettings(DataPlaneSettings):
    """What can be set of an attestor; intervals and the key of the log are configuration, not settings."""

    attestor_fence_file: Path | None = Field(
        default=None,
        description="File that remembers the last head that was signed, one per log. It must survive when the database "
        "is restored from a backup, so it lies on another volume, or at least next to the data directory and not in "
        "it. Its directory must exist; the file is made with the first head. Exactly one of this and "
        "KAPSEL_ATTESTOR_FENCE_LOG is required.",
    )
    attestor_fence_log: str | None = Field(
        default=None,
        max_length=317,
        pattern=_NAMESPACED,
        description="In a cluster, the AttestationLog whose status remembers the last head that was signed, as "
        "NAMESPACE/NAME: the log that the Relay has. Exactly one of this and KAPSEL_ATTESTOR_FENCE_FILE is required.",
    )
    attestor_api_server: str | None = Field(
        default_factory=_api_server,
        pattern=r"^https://[^/?#@]+$",
        description="URL of the Kubernetes API that has the AttestationLog. Default: where KUBERNETES_SERVICE_HOST and "
        "KUBERNETES_SERVICE_PORT say, which every container of a pod has.",
    )
    attestor_service_account: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="Directory with token and ca.crt of the service account that may get and patch the status of the "
        "AttestationLog. Both are read for each request, for they are renewed. Default: where pods have it.",
    )

    attestor_aws_token_file: Path | None = Field(
        default_factory=_aws_token_file,
        description="File with the token for which AWS STS gives the credentials of a role, for a SigningKey of source "
        "AWSKMS with a roleARN. Default: what AWS_WEB_IDENTITY_TOKEN_FILE names, which EKS sets.",
    )
    attestor_google_metadata: str = Field(
        default="http://metadata.google.internal",
        pattern=r"^https?://[^/?#@]+$",
        description="URL of the metadata server that has a token for a SigningKey of source GoogleKMS without "
        "credentials.",
    )
    attestor_identity_hosts: str | None = Field(
        default=None,
        pattern=_HOSTS,
        description="Hosts to which what identifies the pod may go when a SigningKey names them, separated by commas, "
        "without ports: that of a Vault that the pod logs in to with its service account, and those of AWS STS and "
        "Google Cloud KMS that are not the providers' own. Default: no others than the providers' own and this "
        "machine.",
    )

    @property
    def identity_hosts(self) -> frozenset[str]:
        """The hosts to which an identity of the pod may go beside the providers' own."""
        return frozenset((self.attestor_identity_hosts or "").lower().split(",")) - {""}

    @model_validator(mode="after")
    def _exactly_one_fence(self) -> Self:
        if (self.attestor_fence_file is None) == (self.attestor_fence_log is None):
            given = "neither is" if self.attestor_fence_file is None else "both are"
            raise ValueError(
                f"exactly one of KAPSEL_ATTESTOR_FENCE_FILE and KAPSEL_ATTESTOR_FENCE_LOG is needed, and {given} set"
            )
        if self.attestor_fence_log is not None and self.attestor_api_server is None:
            raise ValueError(
                "KAPSEL_ATTESTOR_FENCE_LOG needs a Kubernetes API: run in a pod, or set KAPSEL_ATTESTOR_API_SERVER"
            )
        return self

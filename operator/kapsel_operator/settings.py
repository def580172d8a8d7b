"""The settings of the operator; which databases and webhooks it looks after is declared in resources."""

from datetime import timedelta
from importlib.metadata import version
from typing import Final, Literal

from pydantic import Field

from kapsel_runtime.settings import ProcessSettings

_NAMES: Final = r"^[a-z0-9.-]+(,[a-z0-9.-]+)*$"


class OperatorSettings(ProcessSettings):
    """What can be set of the operator."""

    operator_namespace: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9-]+$",
        description="Namespace of the Lease by which one of several operators is elected. Required: that of its own "
        "pod, where its service account may write a Lease.",
    )
    operator_lease: str = Field(
        default="kapsel-operator",
        min_length=1,
        max_length=253,
        description="Name of that Lease. Default kapsel-operator; operators that watch different namespaces need "
        "different ones.",
    )
    operator_watch_namespaces: str | None = Field(
        default=None,
        pattern=_NAMES,
        description="Namespaces to watch, with commas between them. Default: none, which means all of the cluster.",
    )
    operator_image_repository: str = Field(
        default="localhost/kapsel",
        min_length=1,
        max_length=512,
        description="Image that the pods of all Relays run, without its tag. Default localhost/kapsel, as the "
        "Containerfile builds it.",
    )
    operator_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent",
        description="When a node pulls the image. Default IfNotPresent: a tag never changes its content.",
    )
    operator_image_pull_secrets: str | None = Field(
        default=None,
        pattern=_NAMES,
        description="Names of the Secrets, in the namespace of each Relay, with which nodes pull the image, with "
        "commas between them. Default: none.",
    )
    operator_version: str = Field(
        default_factory=lambda: version("kapsel"),
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="Tag of the image for Relays that name no version. Default: the version of the operator itself.",
    )
    operator_workers: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Relays that are reconciled at once. Default 4; one Relay is never reconciled twice at once.",
    )
    operator_resync_interval: timedelta = Field(
        default=timedelta(seconds=600),
        ge=timedelta(seconds=10),
        le=timedelta(hours=24),
        description="Seconds until everything is compared again although nothing has been heard of a change. Default "
        "600: what a lost watch event may cost at most.",
    )
    operator_secrets_interval: timedelta = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="Seconds between two reads of a Secret that a resource names. Default 30: Secrets are read one by "
        "one by name, so that the operator needs no right to list them.",
    )
    operator_status_interval: timedelta = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="Seconds between two looks at what waits and what fails, and so between two writes of such figures "
        "into a status. Default 30.",
    )
    operator_audit_interval: timedelta = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="Seconds between two comparisons of what the watches have told with what is there. Default 60: a "
        "watch that was broken tells nothing of what was deleted meanwhile.",
    )
    operator_cluster_domain: str = Field(
        default="cluster.local",
        min_length=1,
        max_length=253,
        description="Domain of the cluster's own DNS names. Default cluster.local.",
    )

    @property
    def watch_namespaces(self) -> tuple[str, ...]:
        """The namespaces to watch; none means all."""
        return tuple(self.operator_watch_namespaces.split(",")) if self.operator_watch_namespaces else ()

    @property
    def image_pull_secrets(self) -> tuple[str, ...]:
        """The names of the Secrets with which the image is pulled."""
        return tuple(self.operator_image_pull_secrets.split(",")) if self.operator_image_pull_secrets else ()

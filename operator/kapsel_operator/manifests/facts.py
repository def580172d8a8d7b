"""What the builders of manifests need to know besides the Relay itself: gathered once, then only read.

Whoever reconciles a Relay looks these up; nothing in this package reads the cluster, the database or the clock. Digests
stand for secrets: the values themselves never come here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Manifest = dict[str, Any]
Component = Literal["receiver", "deliverer", "console"]
# Outdated: a migration Job is wanted. Unknown: the database does not answer, so a Job would only fail.
Schema = Literal["Current", "Outdated", "Newer", "Unknown"]


class Capability(StrEnum):
    """An API that a cluster may have or not, by its group."""

    KEDA = "keda.sh"
    GATEWAY = "gateway.networking.k8s.io"
    CNPG = "postgresql.cnpg.io"
    OPENSHIFT = "security.openshift.io"  # gives each namespace user ids of its own, and refuses others


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image that all pods of a Relay run."""

    repository: str
    version: str  # the tag: the Relay's version, or the operator's
    operator_version: str = ""  # the tag of the operator itself, if it is another
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectUrl:
    """The Secret that holds the URL of Postgres itself, where the other URL leads through a pooler."""

    secret: str
    key: str
    port: int = 5432


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The Secret that holds the URL of the database, and what is known of that URL."""

    secret: str
    key: str
    digest: str  # of the URL, or of both; when it changes, pods are replaced, for they read it once
    port: int = 5432
    roles: bool = False  # whether each component has a role of its own to take
    direct: DirectUrl | None = None  # None: the URL leads to Postgres itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The AttestationLog whose status is the attestors' fence."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything about the surroundings of one Relay."""

    owner_uid: str  # of the Relay
    image: Image
    operator_namespace: str
    database: Database | None = None  # None: there is no Secret with a usable URL (yet)
    schema: Schema = "Unknown"  # of the database, as the image sees it
    sealing_key_digest: str | None = None  # None: the Secret is not there yet
    log: Log | None = None
    capabilities: frozenset[Capability] = frozenset()
    cluster_domain: str = "cluster.local"
    listen_host: str = "0.0.0.0"  # noqa: S104 - pods are reached from outside; :: where pods have IPv6 addresses alone
    # Replicas of autoscaled Deployments as long as this operator still owns the field: see observed.owned_replicas.
    replicas: Mapping[Component, int] = field(default_factory=dict)

    @property
    def deployable(self) -> bool:
        """Whether pods of the data plane could start: what they mount is there, and the schema is theirs."""
        return self.database is not None and self.sealing_key_digest is not None and self.schema == "Current"

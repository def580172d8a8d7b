"""Relay: one data plane, its size and exposure in a cluster, its rules for the world outside, and who may use it."""

import ipaddress
from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.connection import Proxy
from kapsel_resources.kinds.exposure import Exposure
from kapsel_resources.kinds.limits import Defaults
from kapsel_resources.kinds.model import (
    ENTRY,
    IMAGE_TAG,
    SUBDOMAIN,
    Labels,
    Model,
    Reference,
    Resource,
    Union,
    broken,
)
from kapsel_resources.kinds.workload import Attestor, Quantity, Workload
from kapsel_resources.rules import Rule
from kapsel_store import rows

RETENTION: Final = rows.EndpointRow(
    id=UUID(int=0), namespace="", name="", verification=rows.Verification(scheme="none")
).retention


def _cidr(text: str) -> str:
    allowed = "a range such as 10.20.0.0/16, 192.0.2.7/32 or fd00::/8"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        broken(f"{text!r} is not a range of addresses", allowed)
    if "/" not in text:
        broken(f"{text!r} has no prefix length", f"{network} for this address alone")
    if text.partition("/")[0] != str(network.network_address):
        broken(f"{text!r} is not the start of its range", str(network))
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        broken(f"{text!r} is a range of IPv4 addresses in the clothes of IPv6", "the range as IPv4 writes it")
    if text != str(network):
        broken(f"{text!r} is not how its range is written", str(network))
    return text


class DatabaseEntry(Model):
    """An entry of a Secret that holds a Postgres URL."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Secret, in the same namespace.")
    key: str = Field(
        default="uri", min_length=1, max_length=253, pattern=ENTRY, description="The entry that holds the URL."
    )


class DatabaseSecret(DatabaseEntry):
    """An entry of a Secret that holds a Postgres URL, and where the URL besides a pooler is."""

    direct_ref: DatabaseEntry | None = Field(
        default=None,
        description=(
            "Where the URL leads through a pooler in transaction mode, such as PgBouncer: the entry with the URL of "
            "Postgres itself, for what needs a session of its own. Without it: the one URL leads to Postgres itself."
        ),
    )


class EmbeddedDatabase(Model):
    """A Postgres of kapsel's own: one pod, one volume, no standby and no backup. For trying kapsel out."""

    RULES = (
        Rule(
            "(has(self.size) ? string(self.size) : '10Gi') == (has(oldSelf.size) ? string(oldSelf.size) : '10Gi')",
            "the volume was made with its size and keeps it",
            "size",
        ),
        Rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName)"
            " && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "the volume was made with its StorageClass and keeps it",
            "storageClassName",
        ),
    )

    size: Quantity = Field(default="10Gi", description="How large the volume is, such as 10Gi.")
    storage_class_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=SUBDOMAIN,
        description="StorageClass of the volume. Default: the cluster's.",
    )


class Database(Union):
    """Postgres 16 or newer: exactly one member. Only a cluster reads this; `kapsel up` brings its own."""

    WHAT = "database"

    secret_ref: DatabaseSecret | None = Field(
        default=None, description="A database that others run: the Secret with its URL."
    )
    cnpg_cluster_ref: Reference | None = Field(
        default=None, description="A CloudNativePG Cluster of the same namespace; its Secret is found by its name."
    )
    embedded: EmbeddedDatabase | None = Field(
        default=None,
        description="A single Postgres that the operator runs, for trying kapsel out and not for production.",
    )


class Selector(Model):
    """Namespaces by their labels."""

    match_labels: Labels = Field(
        min_length=1,
        max_length=16,
        description="Labels that a namespace must all have. Every namespace has kubernetes.io/metadata.name.",
    )


class AllowedNamespaces(Model):
    """Which namespaces may use the Relay, in the shape of the Gateway API."""

    RULES = (
        Rule(
            "has(self.selector) || !has(self.from) || self.from != 'Selector'",
            "from is Selector, and there is no selector",
            "selector",
        ),
        Rule(
            "!has(self.selector) || (has(self.from) && self.from == 'Selector')",
            "selector has no meaning unless from is Selector",
            "selector",
        ),
    )

    from_: Literal["Same", "All", "Selector"] = Field(
        default="Same",
        alias="from",
        description="Same: that of the Relay. All: every one. Selector: those that selector picks.",
    )
    selector: Selector | None = Field(default=None, description="From Selector: which ones.")

    @model_validator(mode="after")
    def _selector_where_it_counts(self) -> "AllowedNamespaces":
        if self.from_ == "Selector" and self.selector is None:
            broken("from is Selector, and there is no selector", "selector: {matchLabels: {...}}", "selector")
        if self.from_ != "Selector" and self.selector is not None:
            broken(f"selector has no meaning for from: {self.from_}", "from: Selector beside it", "selector")
        return self


CIDR = Annotated[
    str,
    AfterValidator(_cidr),
    Field(max_length=64),
    Rule("isCIDR(self)", "not a range of addresses such as 10.20.0.0/16, 192.0.2.7/32 or fd00::/8"),
    Rule("!isCIDR(self) || string(cidr(self).masked()) == self", "not the start of its range, written in full"),
]


class Egress(Model):
    """What deliverers may reach. Private, link-local and metadata addresses are refused unless allowed here."""

    allowed_cidrs: tuple[CIDR, ...] = Field(
        default=(),
        strict=False,
        alias="allowedCIDRs",
        max_length=64,
        description=(
            "Ranges that may be reached although they are private or special. Asked of every address a name "
            "resolves to."
        ),
    )
    proxy: Proxy | None = Field(
        default=None,
        description="What all deliveries go through. Without it they go directly; the environment is never asked.",
    )
    allow_http: bool = Field(
        default=False,
        alias="allowHTTP",
        description="Whether destinations may be plain http, where anybody on the way can read along.",
    )


class RelaySpec(Model):
    """All of it has defaults."""

    version: str | None = Field(
        default=None,
        max_length=128,
        pattern=IMAGE_TAG,
        description=(
            "Which version of kapsel the pods run: the tag of the image. Set it, and an upgrade of the operator never "
            "restarts this Relay. Without it: the operator's own version. Only a cluster reads this."
        ),
    )
    receiver: Workload = Field(default=Workload(), description="The pods that take webhooks.")
    deliverer: Workload = Field(default=Workload(), description="The pods that deliver them.")
    console: Workload = Field(default=Workload(), description="The pods that answer the API.")
    attestor: Attestor = Field(
        default=Attestor(), description="The attestor, which runs beside the deliverer in each of its pods."
    )
    database: Database | None = Field(default=None, description="Where everything is kept. A cluster needs it.")
    exposure: Exposure = Field(
        default=Exposure(),
        description="How providers outside reach the receivers, and destinations the public keys of deliveries.",
    )
    public_log: Literal["None", "Heads", "Proofs", "Leaves"] = Field(
        default="None",
        description=(
            "What of the log outsiders may read without the console's token, at the host name of `exposure` if it has "
            "one. Heads: checkpoints, hashes, keys and consistency proofs. Proofs: also the proof of an attempt, for "
            "whoever knows its id. Leaves: also all leaves, with the URL and outcome of every attempt. Only a cluster "
            "reads this."
        ),
    )
    retention: Duration = Field(
        default=RETENTION,
        ge=timedelta(hours=1),
        le=timedelta(hours=87_600),
        description="How long events are kept, for endpoints that say nothing themselves.",
    )
    hash_retention: Duration | None = Field(
        default=None,
        ge=timedelta(hours=1),
        le=timedelta(hours=87_600),
        description=(
            "How long at least the rest of an event is kept when its body is gone: hashes, times, states and attempts, "
            "by which it is found and proven. Default: as long as the longest retention of any endpoint."
        ),
    )
    defaults: Defaults = Field(
        default=Defaults(), description="Limits and retries of destinations that say nothing themselves."
    )
    egress: Egress = Field(default=Egress(), description="What deliverers may reach.")
    allowed_namespaces: AllowedNamespaces = Field(
        default=AllowedNamespaces(), description="Which namespaces may have endpoints here."
    )
    network_policy: Literal["Enabled", "Disabled"] = Field(
        default="Enabled",
        description=(
            "Enabled: NetworkPolicies let each pod of the Relay talk to what it needs, and to nothing else. Only a "
            "cluster reads this."
        ),
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description=(
            "What becomes of the sealing key and of an embedded database when the Relay is deleted. Retain: they stay, "
            "and a Relay of the same name goes on with them. Delete: they go with it. Only a cluster reads this."
        ),
    )

    def secret_names(self) -> frozenset[str]:
        """Return the Secrets that the configuration needs; that of the database is the operator's own matter."""
        return frozenset() if self.egress.proxy is None else self.egress.proxy.secret_names


class Relay(Resource):
    """One data plane: receivers, deliverers, attestor, console and their database."""

    RULES = (
        *(
            Rule(
                f"!(has(oldSelf.status) && has(oldSelf.status.schemaVersion) && has(oldSelf.spec)"
                f" && has(oldSelf.spec.database) && has(oldSelf.spec.database.{member}))"
                f" || (has(self.spec) && has(self.spec.database) && has(self.spec.database.{member}))",
                "a Relay stays with the kind of database that holds its data: apply another Relay",
                "spec.database",
            )
            for member in Database.aliases()
        ),
    )

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["Relay"]
    spec: RelaySpec = Field(default=RelaySpec(), description="Size, exposure and rules of the data plane.")

"""What the operator may do in a cluster, rule by rule, each with its reason.

The chart's roles and docs/rbac.md say the same; tests compare them with this. Nothing reads it at run time.
"""

from dataclasses import dataclass
from typing import Final, Literal

# watched: in each watched namespace, or everywhere; cluster: objects without a namespace; own: in the operator's own.
Scope = Literal["watched", "cluster", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Verbs on resources of one API group, where, and why."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    scope: Scope = "watched"
    reason: str


_OWNED: Final = ("create", "delete", "get", "list", "patch", "watch")

RULES: Final = (
    Rule(
        group="kapsel.dev",
        resources=("attestationlogs", "relays", "replays", "retrypolicies", "signingkeys", "webhookendpoints"),
        verbs=("get", "list", "watch"),
        reason="what people declare is read, and never written",
    ),
    Rule(
        group="kapsel.dev",
        resources=(
            "attestationlogs/status",
            "relays/status",
            "replays/status",
            "retrypolicies/status",
            "signingkeys/status",
            "webhookendpoints/status",
        ),
        verbs=("get", "patch"),
        reason="conditions and figures, by server-side apply; and the role of an attestor, which the operator writes, "
        "may not hold more than the operator itself",
    ),
    Rule(
        group="kapsel.dev",
        resources=("attestationlogs",),
        verbs=("create",),
        reason="a Relay without an AttestationLog gets one of its own, whose status is the fence of its log",
    ),
    Rule(
        group="kapsel.dev",
        resources=("replays",),
        verbs=("delete",),
        reason="a finished Replay is deleted when its ttlSecondsAfterFinished has passed",
    ),
    Rule(
        group="",
        resources=("secrets",),
        verbs=("create", "delete", "get", "patch"),
        reason="Secrets that resources name are read by name, never listed or watched; sealing keys, generated signing "
        "keys, the console's token and the password of an embedded database are written, and deleted when not needed",
    ),
    Rule(
        group="",
        resources=("serviceaccounts", "services"),
        verbs=_OWNED,
        reason="what a Relay's pods need; objects labelled app.kubernetes.io/managed-by=kapsel are watched, so that "
        "what somebody changes or deletes comes back",
    ),
    Rule(
        group="apps",
        resources=("deployments", "statefulsets"),
        verbs=_OWNED,
        reason="receivers, deliverers, console and embedded database; their status says whether a Relay is Ready",
    ),
    Rule(group="batch", resources=("jobs",), verbs=_OWNED, reason="the Job that migrates a Relay's database"),
    Rule(
        group="autoscaling",
        resources=("horizontalpodautoscalers",),
        verbs=_OWNED,
        reason="autoscaling of type HPA",
    ),
    Rule(
        group="policy",
        resources=("poddisruptionbudgets",),
        verbs=_OWNED,
        reason="a drained node takes one pod of a component at a time",
    ),
    Rule(
        group="networking.k8s.io",
        resources=("ingresses", "networkpolicies"),
        verbs=_OWNED,
        reason="exposure of type Ingress, and what each component may reach and be reached by",
    ),
    Rule(
        group="rbac.authorization.k8s.io",
        resources=("rolebindings", "roles"),
        verbs=_OWNED,
        reason="an attestor's service account may read and patch the status of its own AttestationLog, and post Events",
    ),
    Rule(
        group="keda.sh",
        resources=("scaledobjects",),
        verbs=("create", "delete", "get", "patch"),
        reason="autoscaling of type KEDA, where KEDA is installed",
    ),
    Rule(
        group="gateway.networking.k8s.io",
        resources=("httproutes",),
        verbs=("create", "delete", "get", "patch"),
        reason="exposure of type HTTPRoute, where the Gateway API is installed",
    ),
    Rule(
        group="gateway.networking.k8s.io",
        resources=("gateways",),
        verbs=("get",),
        reason="whether the Gateway of an HTTPRoute exists, and whether its listeners speak TLS",
    ),
    Rule(
        group="postgresql.cnpg.io",
        resources=("clusters",),
        verbs=("get",),
        reason="whether the Cluster of cnpgClusterRef exists and is ready",
    ),
    Rule(
        group="events.k8s.io",
        resources=("events",),
        verbs=("create",),
        reason="one Event when a condition changes, never one for each reconcile",
    ),
    Rule(
        group="",
        resources=("namespaces",),
        verbs=("get", "list", "watch"),
        scope="cluster",
        reason="labels of namespaces, for allowedNamespaces with a selector",
    ),
    Rule(
        group="networking.k8s.io",
        resources=("ingressclasses",),
        verbs=("get", "list"),
        scope="cluster",
        reason="whether the class of an Ingress exists, or a default one",
    ),
    Rule(
        group="coordination.k8s.io",
        resources=("leases",),
        verbs=("create", "get", "update"),
        scope="own",
        reason="one of several operators works, the others stand by",
    ),
)

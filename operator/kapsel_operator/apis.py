"""The kinds that the operator reads and writes, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from kapsel_resources.kinds.model import GROUP_VERSION


@dataclass(frozen=True, slots=True)
class Api:
    """One kind as the API server knows it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version within the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of one object, of a namespace's objects, or of all of the cluster."""
        parts = ["apis" if self.group else "api", self.api_version]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace)]
        parts.append(self.plural)
        parts += [quote(part) for part in (name, subresource) if part]
        return "/" + "/".join(parts)


def _kapsel(kind: str, plural: str) -> Api:
    return Api(GROUP_VERSION, kind, plural)


DECLARED: Final = (
    _kapsel("Relay", "relays"),
    _kapsel("WebhookEndpoint", "webhookendpoints"),
    _kapsel("RetryPolicy", "retrypolicies"),
    _kapsel("SigningKey", "signingkeys"),
    _kapsel("AttestationLog", "attestationlogs"),
    _kapsel("Replay", "replays"),
)
NAMESPACE: Final = Api("v1", "Namespace", "namespaces", namespaced=False)
# Objects of a Relay that every cluster knows: watched by their label.
OWNED: Final = (
    Api("v1", "Service", "services"),
    Api("v1", "ServiceAccount", "serviceaccounts"),
    Api("apps/v1", "Deployment", "deployments"),
    Api("apps/v1", "StatefulSet", "statefulsets"),
    Api("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Api("batch/v1", "Job", "jobs"),
    Api("networking.k8s.io/v1", "Ingress", "ingresses"),
    Api("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Api("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Api("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Api("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
)
# Objects of a Relay whose API a cluster may lack: read by name when a Relay is reconciled that needs them.
OPTIONAL: Final = (
    Api("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
    Api("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
)
SECRET: Final = Api("v1", "Secret", "secrets")
GATEWAY: Final = Api("gateway.networking.k8s.io/v1", "Gateway", "gateways")
INGRESS_CLASS: Final = Api("networking.k8s.io/v1", "IngressClass", "ingressclasses", namespaced=False)
CNPG_CLUSTER: Final = Api("postgresql.cnpg.io/v1", "Cluster", "clusters")
EVENT: Final = Api("events.k8s.io/v1", "Event", "events")
LEASE: Final = Api("coordination.k8s.io/v1", "Lease", "leases")

BY_KIND: Final = {
    (api.api_version, api.kind): api
    for api in (*DECLARED, NAMESPACE, *OWNED, *OPTIONAL, SECRET, GATEWAY, INGRESS_CLASS, CNPG_CLUSTER, EVENT, LEASE)
}
DECLARED_BY_KIND: Final = {api.kind: api for api in DECLARED}

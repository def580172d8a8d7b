"""What the smoke test puts into a cluster, and how it reads what is there: pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

GROUP_VERSION: Final = "kapsel.dev/v1alpha1"
SECRET_ENTRY: Final = "provider"  # noqa: S105 - the name of an entry
Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where the test works, under one name for all of its objects."""

    namespace: str
    name: str
    relay: str  # of the same namespace
    destination: str  # a URL
    owner: tuple[str, str] | None = None  # name and uid of the test's pod: what it makes goes with it at the latest


def relay(scene: Scene, address: str, storage_class: str | None) -> dict[str, Manifest]:
    """Return a Relay of the test's own with its log, by plural: small, and gone without a trace when it is deleted."""
    embedded = {"size": "1Gi", **({"storageClassName": storage_class} if storage_class else {})}
    one = {"replicas": 1}
    spec = {
        "receiver": one,
        "deliverer": one,
        "console": one,
        "database": {"embedded": embedded},
        "egress": {"allowedCIDRs": [host_range(address)], "allowHTTP": True},
        "deletionPolicy": "Delete",
    }
    log = {"relayRef": {"name": scene.relay}, "publication": {"interval": "1s"}}
    return {
        "relays": _resource(scene, "Relay", scene.relay, spec),
        "attestationlogs": _resource(scene, "AttestationLog", scene.name, log),
    }


def endpoint(scene: Scene, secret: str) -> dict[str, Manifest]:
    """Return an endpoint that takes webhooks signed with the secret and sends them to the scene's destination."""
    key = {"algorithm": "HMAC-SHA256", "source": "Secret"}
    reference = {"name": scene.name, "keys": [SECRET_ENTRY]}
    spec = {
        "relayRef": {"name": scene.relay},
        "verification": {"standardWebhooks": {"signingKeyRef": {"name": scene.name}}},
        "destinations": [{"name": "smoke", "url": scene.destination}],
    }
    return {
        "secrets": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": _metadata(scene, scene.name),
            "stringData": {SECRET_ENTRY: secret},
        },
        "signingkeys": _resource(scene, "SigningKey", scene.name, {**key, "secretRef": reference}),
        "webhookendpoints": _resource(scene, "WebhookEndpoint", scene.name, spec),
    }


def host_range(address: str) -> str:
    """Return the range of addresses that holds one address alone."""
    return f"{address}/{128 if ':' in address else 32}"


def readiness(found: Manifest) -> tuple[bool, str]:
    """Return whether a resource is Ready as it is declared now, and what its conditions say."""
    status = found.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready = conditions.get("Ready")
    if ready is None:
        return False, ""
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    words = f"{ready['reason']}: {ready.get('message') or 'no message'}"
    return current and ready["status"] == "True", words


def reaches(egress: Manifest, address: str) -> bool:
    """Whether a Relay with these rules delivers to an address over plain http."""
    ranges = [ip_network(one, strict=False) for one in egress.get("allowedCIDRs") or ()]
    return bool(egress.get("allowHTTP")) and any(ip_address(address) in one for one in ranges)


def _resource(scene: Scene, kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": _metadata(scene, name), "spec": spec}


def _metadata(scene: Scene, name: str) -> Manifest:
    found: dict[str, Any] = {"name": name, "namespace": scene.namespace}
    if scene.owner is not None:
        owner, uid = scene.owner
        found["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": uid}]
    return found

"""Ingress and HTTPRoute: the way in for providers outside of the cluster, to the receivers.

The path of the public keys that deliveries are signed with leads to the consoles, for destinations are outside too. So
do the paths of the log, if the Relay opens it to outsiders. What else a console has stays in the cluster, behind its
token.
"""

from typing import Final

from kapsel_operator.manifests import names
from kapsel_operator.manifests.containers import HTTP
from kapsel_operator.manifests.facts import Capability, Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_operator.manifests.services import PORT
from kapsel_resources.kinds.exposure import Exposure, GatewayReference
from kapsel_resources.kinds.relay import Relay

# As KAPSEL_CONSOLE_PUBLIC_LOG opens them; whatever else is below them wants the token.
LOG_PATHS: Final = ("/checkpoint", "/tile", "/logs", "/.well-known/kapsel", "/api/v1/attestation")
KEYS_PATH: Final = "/.well-known/kapsel/signing-keys"


def route(relay: Relay, facts: Facts) -> Manifest | None:
    """Return the Ingress or HTTPRoute; None if the Relay is exposed otherwise, or the cluster has no Gateway API."""
    exposure = relay.spec.exposure
    if exposure.type == "Ingress" and exposure.hostname is not None:
        return _ingress(relay, facts, exposure, exposure.hostname)
    if exposure.type != "HTTPRoute" or exposure.hostname is None or exposure.gateway_ref is None:
        return None
    if Capability.GATEWAY not in facts.capabilities:
        return None
    return _http_route(relay, facts, exposure.hostname, exposure.gateway_ref)


def _ingress(relay: Relay, facts: Facts, exposure: Exposure, hostname: str) -> Manifest:
    paths = [
        {
            "path": path,
            "pathType": "Prefix",
            "backend": {"service": {"name": names.object_name(relay.metadata.name, to), "port": {"name": HTTP}}},
        }
        for path, to in _paths(relay)
    ]
    spec: Manifest = {"rules": [{"host": hostname, "http": {"paths": paths}}]}
    if exposure.ingress_class_name is not None:
        spec["ingressClassName"] = exposure.ingress_class_name
    if exposure.tls_secret_ref is not None:
        spec["tls"] = [{"hosts": [hostname], "secretName": exposure.tls_secret_ref.name}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(relay, facts, "receiver", annotations=exposure.annotations),
        "spec": spec,
    }


def _http_route(relay: Relay, facts: Facts, hostname: str, gateway: GatewayReference) -> Manifest:
    """Return the HTTPRoute with everything that a server would fill in, so that what is applied is what is read."""
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name}
    if gateway.namespace is not None:
        parent["namespace"] = gateway.namespace
    if gateway.section_name is not None:
        parent["sectionName"] = gateway.section_name
    rules: dict[str, Manifest] = {}
    for path, to in _paths(relay):
        backend = {
            "group": "",
            "kind": "Service",
            "name": names.object_name(relay.metadata.name, to),
            "port": PORT,
            "weight": 1,
        }
        rule = rules.setdefault(to, {"matches": [], "backendRefs": [backend]})
        rule["matches"].append({"path": {"type": "PathPrefix", "value": path}})
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(relay, facts, "receiver", annotations=relay.spec.exposure.annotations),
        "spec": {"parentRefs": [parent], "hostnames": [hostname], "rules": list(rules.values())},
    }


def _paths(relay: Relay) -> list[tuple[str, str]]:
    """Return which path leads to the pods of which component, the one that has all others last."""
    opened = () if relay.spec.public_log == "None" else LOG_PATHS
    return [*((path, "console") for path in (KEYS_PATH, *opened)), ("/", "receiver")]

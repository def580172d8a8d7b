"""Services: what reaches the pods of each component."""

from kapsel_operator.manifests import names
from kapsel_operator.manifests.containers import ATTESTOR_HEALTH, HEALTH, HTTP
from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay

PORT = 80  # of receiver and console within the cluster, so that their URLs need none


def receiver_service(relay: Relay, facts: Facts) -> Manifest:
    """Return where webhooks come in: within the cluster, or through the cloud's load balancer."""
    exposure = relay.spec.exposure
    outside = exposure.type == "LoadBalancer"
    # Health and metrics stay inside: a load balancer would show them to everybody.
    ports = [_port(HTTP, PORT)] if outside else [_port(HTTP, PORT), _port(HEALTH, 9090)]
    annotations = exposure.annotations if exposure.type in ("LoadBalancer", "ClusterIP") else None
    return _service(
        relay,
        facts,
        "receiver",
        {"type": "LoadBalancer" if outside else "ClusterIP", "ports": ports},
        annotations,
    )


def deliverer_service(relay: Relay, facts: Facts) -> Manifest:
    """Return a name for the metrics of each deliverer pod; nobody sends work there.

    Also of pods that are not ready: those are the ones whose metrics matter.
    """
    ports = [_port(HEALTH, 9090), _port(ATTESTOR_HEALTH, 9091)]
    spec = {"type": "ClusterIP", "clusterIP": "None", "publishNotReadyAddresses": True, "ports": ports}
    return _service(relay, facts, "deliverer", spec)


def console_service(relay: Relay, facts: Facts) -> Manifest:
    """Return where the API answers."""
    spec = {"type": "ClusterIP", "ports": [_port(HTTP, PORT), _port(HEALTH, 9090)]}
    return _service(relay, facts, "console", spec)


def _service(
    relay: Relay, facts: Facts, component: str, spec: Manifest, annotations: dict[str, str] | None = None
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(relay, facts, component, annotations=annotations),
        "spec": {**spec, "selector": names.selector(relay, component)},
    }


def _port(name: str, number: int) -> Manifest:
    return {"name": name, "port": number, "protocol": "TCP", "targetPort": name}

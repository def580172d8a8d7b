"""Autoscalers: a HorizontalPodAutoscaler by CPU, or a ScaledObject of KEDA by the age of the oldest due delivery.

KEDA reads that age from the metrics of the deliverers, which every deliverer knows for the whole queue. It could also
ask Postgres itself, but would need the URL of the database for that, with every right on every table; metrics need no
credential at all.
"""

from typing import Final

from kapsel_operator.manifests import names
from kapsel_operator.manifests.facts import Capability, Component, Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.workload import Autoscaling

METRIC: Final = "delivery_oldest_due_age_seconds"
POLLING_SECONDS: Final = 15


def autoscaler(relay: Relay, facts: Facts, component: Component, scaling: Autoscaling) -> Manifest | None:
    """Return what decides how many pods there are; None if the cluster has no KEDA."""
    if scaling.type == "HPA":
        return _by_cpu(relay, facts, component, scaling)
    if Capability.KEDA in facts.capabilities:
        return _by_age(relay, facts, component, scaling)
    return None


def _by_cpu(relay: Relay, facts: Facts, component: Component, scaling: Autoscaling) -> Manifest:
    # The CPU of kapsel's own container: what else a pod holds may request none, and then nothing could be computed.
    metric = {
        "type": "ContainerResource",
        "containerResource": {
            "container": component,
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": scaling.target_cpu_utilization},
        },
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(relay, facts, component),
        "spec": {
            "scaleTargetRef": _target(relay, component),
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [metric],
        },
    }


def _by_age(relay: Relay, facts: Facts, component: Component, scaling: Autoscaling) -> Manifest:
    service = names.object_name(relay.metadata.name, "deliverer")
    trigger = {
        "type": "metrics-api",
        # Value, not AverageValue: an age does not divide by the number of pods.
        "metricType": "Value",
        "metadata": {
            "url": f"http://{service}.{relay.metadata.namespace}.svc.{facts.cluster_domain}:9090/metrics",
            "format": "prometheus",
            "valueLocation": METRIC,
            "targetValue": f"{scaling.target_age.total_seconds():g}",
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(relay, facts, component),
        "spec": {
            "scaleTargetRef": _target(relay, component),
            "pollingInterval": POLLING_SECONDS,
            "minReplicaCount": scaling.min_replicas,
            "maxReplicaCount": scaling.max_replicas,
            "triggers": [trigger],
        },
    }


def _target(relay: Relay, component: Component) -> Manifest:
    name = names.object_name(relay.metadata.name, component)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}

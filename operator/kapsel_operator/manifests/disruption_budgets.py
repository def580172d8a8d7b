"""PodDisruptionBudgets: draining nodes takes one pod of a component at a time."""

from kapsel_operator.manifests import deployments, names
from kapsel_operator.manifests.facts import Component, Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay


def disruption_budget(relay: Relay, facts: Facts, component: Component) -> Manifest | None:
    """Return the budget of a component; None with a single pod, which it would only keep nodes from being drained."""
    if deployments.at_least(relay, component) < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(relay, facts, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(relay, component)},
            # A pod that does not work anyway protects nobody.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }

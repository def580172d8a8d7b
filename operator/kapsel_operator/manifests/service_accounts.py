"""ServiceAccounts: one for each component, none of which gives its pods a token by itself.

Only the attestor talks to the Kubernetes API; `pods` mounts a token into its container alone. It shares the pod, and so
the account, with the deliverer, whose container sees no token.
"""

from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay


def service_account(relay: Relay, facts: Facts, component: str) -> Manifest:
    """Return the account of a component."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(relay, facts, component),
        "automountServiceAccountToken": False,
    }

"""The rights that pods of a Relay have: to keep the fence in the status of their own AttestationLog, and to cry out.

The Role lies where the log lies. In another namespace it cannot be owned by the Relay (the garbage collector would
delete it at once), so there it is owned by the log.
"""

from kapsel_operator.manifests import names
from kapsel_operator.manifests.facts import Facts, Log, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_resources.kinds.relay import Relay

_GROUP = GROUP_VERSION.partition("/")[0]


def attestor_role(relay: Relay, facts: Facts, log: Log) -> Manifest:
    """Return the Role: read and write the status of this log, post an Event when it is frozen, and nothing else."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(relay, facts, log),
        "rules": [
            {
                "apiGroups": [_GROUP],
                "resources": ["attestationlogs/status"],
                "resourceNames": [log.name],
                "verbs": ["get", "patch"],
            },
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        ],
    }


def attestor_role_binding(relay: Relay, facts: Facts, log: Log) -> Manifest:
    """Return the binding of that Role to the account of the pods that hold the attestor."""
    described = _metadata(relay, facts, log)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": described,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": described["name"]},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": names.object_name(relay.metadata.name, "deliverer"),
                "namespace": relay.metadata.namespace,
            }
        ],
    }


def _metadata(relay: Relay, facts: Facts, log: Log) -> Manifest:
    if log.namespace == relay.metadata.namespace:
        return metadata(relay, facts, "attestor")
    name = names.object_name(f"{relay.metadata.namespace}-{relay.metadata.name}", "attestor")
    owner = {"apiVersion": GROUP_VERSION, "kind": "AttestationLog", "name": log.name, "uid": log.uid}
    return {**metadata(relay, facts, "attestor", name=name), "namespace": log.namespace, "ownerReferences": [owner]}

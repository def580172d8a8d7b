"""The metadata of every object: name, labels, and the Relay as its owner, so that it goes when the Relay goes."""

from collections.abc import Mapping

from kapsel_operator.manifests import names
from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_resources.kinds.relay import Relay


def metadata(
    relay: Relay,
    facts: Facts,
    component: str,
    *,
    name: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the metadata of an object of a component; it is called after the component unless it has a name."""
    found: Manifest = {
        "name": name or names.object_name(relay.metadata.name, component),
        "namespace": relay.metadata.namespace,
        "labels": names.labels(relay, component, facts.image.version),
        "ownerReferences": [owner(relay, facts)],
    }
    if annotations:
        found["annotations"] = dict(annotations)
    return found


def owner(relay: Relay, facts: Facts) -> Manifest:
    """Return the reference to the Relay.

    Without blockOwnerDeletion: some clusters ask for a right on the owner's finalizers for it, and nothing here waits.
    """
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "Relay",
        "name": relay.metadata.name,
        "uid": facts.owner_uid,
        "controller": True,
    }

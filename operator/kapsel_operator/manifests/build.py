"""All objects of one Relay, in the order in which they are applied."""

from typing import NamedTuple

from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.problems import Problem


class Key(NamedTuple):
    """Which object: enough to find it in a cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str


def key_of(manifest: Manifest) -> Key:
    """Return which object a manifest is about."""
    metadata = manifest["metadata"]
    return Key(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])


def build(relay: Relay, facts: Facts) -> tuple[Manifest, ...]:
    """Return the objects to apply now, in order; an owned object that is neither here nor held is to be deleted."""
    return ()


def held(relay: Relay, facts: Facts) -> frozenset[Key]:
    """Return what must not be applied now, and must not be deleted either.

    While the database, the sealing key or the schema is missing, Deployments stay as they are: the old version goes on
    until the new one can start. A migration Job that has done its work stays until its time to live is over.
    """
    return frozenset()


def problems(relay: Relay, facts: Facts) -> tuple[Problem, ...]:
    """Return what the Relay asks for and does not get, each with what to do; all the rest is built."""
    return ()

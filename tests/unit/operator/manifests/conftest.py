"""Relays of the shapes that people use, and what is known around them.

`python conftest.py` writes the manifests of all shapes anew into golden/. A person reads what has changed before it is
committed: it is what the next release changes in clusters.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from kapsel_operator.manifests.build import build
from kapsel_operator.manifests.facts import Capability, Database, Facts, Image, Log
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.manifests import parse

GOLDEN: Final = Path(__file__).parent / "golden"
ROOT: Final = Path(__file__).parents[4]


def make_relay(spec: dict[str, Any] | None = None, name: str = "main", namespace: str = "shop") -> Relay:
    document = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "spec": spec or {}}
    found = parse({**document, "metadata": {"name": name, "namespace": namespace}})
    assert isinstance(found, Relay), [str(problem) for problem in found]
    return found


def make_facts(**known: Any) -> Facts:
    image = Image(repository="localhost/kapsel", version="0.1.0")
    base: dict[str, Any] = {
        "owner_uid": "11111111-1111-1111-1111-111111111111",
        "image": image,
        "operator_namespace": "kapsel-system",
        "database": Database(secret="database", key="uri", digest="0123456789abcdef", roles=True),
        "schema": "Current",
        "sealing_key_digest": "fedcba9876543210",
        "log": Log(namespace="shop", name="shop", uid="22222222-2222-2222-2222-222222222222"),
        "capabilities": frozenset({Capability.KEDA, Capability.GATEWAY, Capability.CNPG}),
    }
    return Facts(**{**base, **known})


def quickstart() -> tuple[Relay, Facts]:
    """The Relay of examples/quickstart."""
    for path in sorted((ROOT / "examples" / "quickstart").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Relay":
                found = parse(document)
                assert isinstance(found, Relay)
                return found, make_facts(
                    database=Database(secret="main-postgres", key="uri", digest="0123", roles=True)
                )
    raise AssertionError("the quickstart has a Relay")


def production() -> tuple[Relay, Facts]:
    """A Relay with a database and a Gateway of others, that follows the load."""
    spec = {
        "version": "0.1.0",
        "receiver": {"autoscaling": {"minReplicas": 3, "maxReplicas": 30}},
        "deliverer": {
            "autoscaling": {"type": "KEDA", "maxReplicas": 20, "targetAge": "30s"},
            "podTemplate": {"spec": {"terminationGracePeriodSeconds": 120, "nodeSelector": {"pool": "webhooks"}}},
        },
        "console": {"replicas": 1},
        "database": {"cnpgClusterRef": {"name": "pg"}},
        "exposure": {
            "type": "HTTPRoute",
            "hostname": "hooks.example.com",
            "gatewayRef": {"name": "public", "namespace": "gateways", "sectionName": "https"},
        },
        "egress": {"allowedCIDRs": ["10.96.0.0/16"]},
    }
    image = Image(
        repository="registry.example.com/kapsel", version="0.1.0", pull_policy="Always", pull_secrets=("registry",)
    )
    database = Database(secret="pg-app", key="uri", digest="0123456789abcdef")
    log = Log(namespace="audit", name="deliveries", uid="33333333-3333-3333-3333-333333333333")
    return make_relay(spec), make_facts(image=image, database=database, log=log)


def migrating() -> tuple[Relay, Facts]:
    """A Relay whose database is not there yet, behind an Ingress, with an embedded database."""
    spec = {
        "database": {"embedded": {"size": "1Gi", "storageClassName": "fast"}},
        "deletionPolicy": "Delete",
        "networkPolicy": "Disabled",
        "exposure": {
            "type": "Ingress",
            "hostname": "hooks.example.com",
            "ingressClassName": "nginx",
            "tlsSecretRef": {"name": "hooks-tls"},
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        },
    }
    return make_relay(spec), make_facts(schema="Outdated", log=None, sealing_key_digest=None)


@pytest.fixture(scope="session")
def relay() -> Callable[..., Relay]:
    """Make a Relay with a spec."""
    return make_relay


@pytest.fixture(scope="session")
def facts() -> Callable[..., Facts]:
    """Make Facts of a cluster that has everything, but for what a test says."""
    return make_facts


SHAPES: Final = {"quickstart": quickstart, "production": production, "migrating": migrating}


class _Plain(yaml.SafeDumper):
    """Writes everything out, also what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(shape: str) -> str:
    """Return the manifests of a shape as they are kept."""
    return yaml.dump_all(build(*SHAPES[shape]()), Dumper=_Plain, sort_keys=False, width=120)


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """Each of the shapes."""
    return str(request.param)


@pytest.fixture
def shaped(shape: str) -> tuple[Relay, Facts]:
    """The Relay of that shape, and what is known."""
    return SHAPES[shape]()


@pytest.fixture
def now_and_then(shape: str) -> tuple[str, str]:
    """The manifests of that shape, as they are now and as they were kept."""
    return written(shape), (GOLDEN / f"{shape}.yaml").read_text()


if __name__ == "__main__":
    for name in SHAPES:
        (GOLDEN / f"{name}.yaml").write_text(written(name))

"""A Relay in a namespace of the restricted level, and its manifests applied as the operator applies them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from kubernetes.aio import client as kubernetes_api
from onenode.control_plane import Cluster as ControlPlane
from prometheus_client import CollectorRegistry

from kapsel_operator import apis
from kapsel_operator.cluster import Cluster
from kapsel_operator.manifests.build import build
from kapsel_operator.manifests.facts import Capability, Database, Facts, Image, Log, Manifest
from kapsel_operator.metrics import Metrics
from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.manifests import parse

STANDINS: Final = Path(__file__).parent / "standins"


@dataclass
class Shop:
    """One Relay as the API server took it, what is known about it, and who applies."""

    namespace: str
    relay: Relay
    facts: Facts
    cluster: Cluster

    def knowing(self, **facts: Any) -> "Shop":
        """Return the same with other facts."""
        return replace(self, facts=replace(self.facts, **facts))

    async def change(self, spec: Mapping[str, Any]) -> "Shop":
        """Return the same with another spec of its Relay."""
        return replace(self, relay=await declare(self.cluster, self.namespace, spec))

    async def apply(self) -> list[Manifest]:
        """Apply everything in its order, and return what the server made of it."""
        return [await self.cluster.apply(manifest) for manifest in build(self.relay, self.facts)]

    async def get(self, kind: str, name: str) -> Manifest:
        """Return an object as it is now."""
        api = next(one for one in apis.BY_KIND.values() if one.kind == kind)
        found = await self.cluster.get(api, self.namespace, name)
        assert found is not None, f"there is no {kind} {name}"
        return found


MakeShop = Callable[[Mapping[str, Any]], Awaitable[Shop]]


async def declare(cluster: Cluster, namespace: str, spec: Mapping[str, Any]) -> Relay:
    """Apply the Relay `main` as a person does, and return it as the operator reads it."""
    manifest = {"metadata": {"name": "main", "namespace": namespace}, "spec": spec}
    taken = await cluster.apply({"apiVersion": GROUP_VERSION, "kind": "Relay", **manifest})
    relay = parse(taken)
    assert isinstance(relay, Relay), [str(problem) for problem in relay]
    return relay


@pytest.fixture(scope="session")
def standins(control_plane: ControlPlane) -> None:
    """The APIs of KEDA and of the Gateway API are served, as far as kapsel uses them."""
    files = [f"--filename={path}" for path in sorted(STANDINS.glob("*.yaml"))]
    control_plane.kubectl("apply", "--server-side", *files)
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=180s", *files)


@pytest.fixture
async def cluster(api: kubernetes_api.ApiClient) -> Cluster:
    """The operator's own client, which may do everything."""
    return Cluster(api, Metrics(CollectorRegistry()))


@pytest.fixture
async def make_shop(
    crds: None, standins: None, control_plane: ControlPlane, namespace: str, cluster: Cluster
) -> MakeShop:
    """Make the Relay `main` with a spec; its objects are owned by it, or the garbage collector would take them."""
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")

    async def make(spec: Mapping[str, Any]) -> Shop:
        relay = await declare(cluster, namespace, spec)
        metadata = {"name": "main", "namespace": namespace}
        log = await cluster.apply(
            {"apiVersion": GROUP_VERSION, "kind": "AttestationLog", "metadata": metadata, "spec": {}}
        )
        live = await cluster.get(apis.DECLARED_BY_KIND["Relay"], namespace, "main")
        assert live is not None
        facts = Facts(
            owner_uid=live["metadata"]["uid"],
            image=Image(repository="localhost/kapsel", version="0.1.0", pull_secrets=("registry",)),
            operator_namespace="kapsel-system",
            database=Database(secret="main-database", key="uri", digest="d1", roles=True),
            schema="Current",
            sealing_key_digest="s1",
            log=Log(namespace=namespace, name="main", uid=log["metadata"]["uid"]),
            capabilities=frozenset({Capability.KEDA, Capability.GATEWAY, Capability.CNPG}),
        )
        return Shop(namespace=namespace, relay=relay, facts=facts, cluster=cluster)

    return make

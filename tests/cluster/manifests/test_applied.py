"""Every shape of a Relay's objects is taken by a real API server, and applying it again changes nothing."""

import itertools
from typing import Any

import pytest

from kapsel_operator import apis
from kapsel_operator.cluster import Cluster
from kapsel_operator.manifests.build import build, key_of
from kapsel_operator.manifests.facts import Manifest

EXPOSURES = {
    "ClusterIP": {"type": "ClusterIP"},
    "LoadBalancer": {"type": "LoadBalancer", "annotations": {"example.com/scheme": "internal"}},
    "Ingress": {
        "type": "Ingress",
        "hostname": "hooks.example.com",
        "ingressClassName": "nginx",
        "tlsSecretRef": {"name": "hooks-tls"},
    },
    "HTTPRoute": {
        "type": "HTTPRoute",
        "hostname": "hooks.example.com",
        "gatewayRef": {"name": "public", "namespace": "gateways", "sectionName": "https"},
    },
}
AUTOSCALING = {
    "fixed": {"replicas": 3},
    "single": {"replicas": 1},
    "HPA": {"autoscaling": {"maxReplicas": 9, "targetCPUUtilization": 60}},
    "KEDA": {"autoscaling": {"type": "KEDA", "minReplicas": 1, "maxReplicas": 9, "targetAge": "2500ms"}},
}
DATABASES = {
    "secret": {"secretRef": {"name": "main-database"}},
    "cnpg": {"cnpgClusterRef": {"name": "pg"}},
    "embedded": {"embedded": {"size": "1Gi", "storageClassName": "fast"}},
}


def spec(exposure: str, autoscaling: str, database: str) -> dict[str, Any]:
    return {
        "exposure": EXPOSURES[exposure],
        "receiver": {**AUTOSCALING[autoscaling], "resources": {"requests": {"cpu": "0.5", "memory": "0.5Gi"}}},
        "deliverer": AUTOSCALING[autoscaling],
        "console": {"replicas": 1},
        "database": DATABASES[database],
        "egress": {"allowedCIDRs": ["10.96.0.0/16"]},
    }


@pytest.mark.parametrize("database", DATABASES)
async def test_every_shape_is_taken_and_taken_again_without_a_change(make_shop: Any, database: str) -> None:
    """Each shape follows another one in the same namespace, so every way from one to the next is open too."""
    shop, seen = await make_shop(spec("ClusterIP", "fixed", database)), {}
    for exposure, autoscaling in itertools.product(EXPOSURES, AUTOSCALING):
        shop = await shop.change(spec(exposure, autoscaling, database))
        for manifest in build(shop.relay, shop.facts):
            if seen.get(key_of(manifest)) != manifest:
                await shop.cluster.apply(manifest)
                await assert_a_second_apply_changes_nothing(shop.cluster, manifest)
            seen[key_of(manifest)] = manifest


@pytest.mark.parametrize("exposure", EXPOSURES)
async def test_what_is_applied_is_what_is_read_back(make_shop: Any, exposure: str) -> None:
    """So an operator that compares before it writes finds nothing to write; quantities alone are written otherwise."""
    shop = await make_shop({**spec(exposure, "HPA", "embedded"), "receiver": {"replicas": 2}})
    for manifest, live in zip(build(shop.relay, shop.facts), await shop.apply(), strict=True):
        assert missing(manifest, live, (manifest["kind"],)) == []


async def test_pods_of_every_component_pass_the_restricted_level_of_pod_security(make_shop: Any) -> None:
    bare = {"spec": {"containers": [{"name": "destination", "args": ["run", "destination"]}]}}
    shop = await make_shop({**spec("ClusterIP", "fixed", "embedded"), "deliverer": {"podTemplate": bare}})
    migrating = shop.knowing(schema="Outdated")
    found = [*await shop.apply(), *await migrating.apply()]
    templates = [(one["kind"], one["spec"]["template"]) for one in found if "template" in one.get("spec", {})]
    assert {kind for kind, _ in templates} == {"Deployment", "StatefulSet", "Job"}
    for kind, template in templates:
        # A StatefulSet's pods get their volume from its claim; a Job's labels name the Job.
        volumes = [*template["spec"]["volumes"], *([{"name": "data", "emptyDir": {}}] if kind == "StatefulSet" else [])]
        metadata = {**template["metadata"], "name": "try", "namespace": shop.namespace}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {**template["spec"], "volumes": volumes},
        }
        path = f"/api/v1/namespaces/{shop.namespace}/pods"
        await shop.cluster._request("POST", path, {"dryRun": "All"}, body=pod)


async def assert_a_second_apply_changes_nothing(cluster: Cluster, manifest: Manifest) -> None:
    """Controllers write meanwhile, autoscalers too, so it is tried again until none of them comes in between."""
    api = apis.BY_KIND[manifest["apiVersion"], manifest["kind"]]
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    for _ in range(20):
        before = await cluster.get(api, namespace, name)
        after = await cluster.apply(manifest)
        assert before is not None
        if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]:
            return
    pytest.fail(f"each apply of {manifest['kind']} {name} makes a new version")


def missing(wanted: Any, live: Any, path: tuple[object, ...]) -> list[str]:
    """Return where a manifest says something that the object does not have."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        found = [(key, value, live.get(key)) for key, value in wanted.items()]
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        found = [(index, *pair) for index, pair in enumerate(zip(wanted, live, strict=True))]
    else:
        return [] if wanted == live else [f"{path}: {wanted!r} became {live!r}"]
    return [one for key, value, other in found for one in missing(value, other, (*path, key))]

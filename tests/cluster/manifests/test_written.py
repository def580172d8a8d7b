"""The operator's writer and these manifests: what is written once is not written again."""

from typing import Any

import pytest
from kubernetes.aio import client as kubernetes_api
from prometheus_client import CollectorRegistry

from kapsel_operator.apis import OPTIONAL
from kapsel_operator.apply import Writer
from kapsel_operator.cluster import Cluster
from kapsel_operator.events import Recorder
from kapsel_operator.manifests.build import build, held, key_of
from kapsel_operator.manifests.facts import Log
from kapsel_operator.manifests.quantities import canonical
from kapsel_operator.metrics import Metrics
from kapsel_operator.store import Store

ROUTED = {
    "database": {"embedded": {}},
    "receiver": {"autoscaling": {"maxReplicas": 3}, "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}},
    "exposure": {"type": "HTTPRoute", "hostname": "h.example.com", "gatewayRef": {"name": "public"}},
}


class Written:
    """An operator's writer, the store it keeps, and how many writes it has made."""

    def __init__(self, api: kubernetes_api.ApiClient) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.cluster = Cluster(api, self.metrics)
        self.store = Store()
        self.writer = Writer(self.cluster, self.store, Recorder(self.cluster, "operator-1"))

    async def objects(self, shop: Any) -> list[Any]:
        """Write the objects of a shop, as a reconcile does."""
        optional = {}
        for manifest in build(shop.relay, shop.facts):
            api = next((one for one in OPTIONAL if one.kind == manifest["kind"]), None)
            if api is not None:
                found = await self.cluster.get(api, shop.namespace, manifest["metadata"]["name"])
                optional |= {} if found is None else {key_of(found): found}
        manifests, kept = build(shop.relay, shop.facts), held(shop.relay, shop.facts)
        return await self.writer.objects(shop.facts.owner_uid, manifests, kept, optional)

    def writes(self) -> dict[tuple[str, str], float]:
        """Return how often each kind was written."""
        return {
            (one.labels["verb"], one.labels["kind"]): one.value
            for metric in self.metrics.writes.collect()
            for one in metric.samples
            if one.name.endswith("_total")
        }


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_is_written_once_is_not_written_again(
    make_shop: Any, make_namespace: Any, api: Any, elsewhere: bool
) -> None:
    shop = await make_shop(ROUTED)
    if elsewhere:
        namespace = make_namespace()
        log = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "AttestationLog", "spec": {}}
        made = await shop.cluster.apply({**log, "metadata": {"name": "theirs", "namespace": namespace}})
        shop = shop.knowing(log=Log(namespace=namespace, name="theirs", uid=made["metadata"]["uid"]))
    written = Written(api)
    assert await written.objects(shop) == []
    before = written.writes()
    assert await written.objects(shop) == []
    assert written.writes() == before


QUANTITIES = (
    *("0.5", ".5", "500m", "1000m", "1500m", "2", "1000", "1e3", "12e1", "0", "0Gi", "1024Mi", "1.5Gi", "0.5Gi", "1Ki"),
    *("0.5Ki", "0.1Gi", "128974848", "123M", "1Ei", "0.0000000001", "1E", "3k", "1000Ki", "2048Ki", "1n", "100u"),
)


async def test_quantities_are_written_as_a_server_keeps_them(cluster: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    for quantity in QUANTITIES:
        metadata, spec = {"name": "try", "namespace": namespace}, {"hard": {"requests.memory": quantity}}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec}
        kept = await cluster._request("POST", path, {"dryRun": "All"}, body=body)
        assert kept["spec"]["hard"]["requests.memory"] == canonical(quantity), quantity


async def test_what_is_asked_for_no_more_is_deleted_and_what_waits_is_kept(make_shop: Any, api: Any) -> None:
    shop, written = await make_shop(ROUTED), Written(api)
    assert await written.objects(shop) == []
    waiting = (await shop.change({"database": {"embedded": {}}})).knowing(schema="Unknown")
    assert await written.objects(waiting) == []
    deleted = {kind for verb, kind in written.writes() if verb == "delete"}
    assert deleted == {"HorizontalPodAutoscaler", "HTTPRoute"}
    await shop.get("Deployment", "main-receiver")

"""A Relay whose namespace is being deleted: its endpoints may go before it does, and nobody has taken them back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client as kubernetes_client
from prometheus_client import CollectorRegistry

from kapsel_operator.apply import Writer
from kapsel_operator.cluster import Cluster
from kapsel_operator.databases import Databases
from kapsel_operator.events import Recorder
from kapsel_operator.gather import Gatherer
from kapsel_operator.metrics import Metrics
from kapsel_operator.reconcile import Reconciler
from kapsel_operator.secret_reader import SecretReader
from kapsel_operator.settings import OperatorSettings
from kapsel_operator.store import Store
from kapsel_operator.workqueue import Key

RELAY = Key("Relay", "shop", "main")


def namespace(**more: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "n", **more}}


@pytest.fixture
def store() -> Store:
    made = Store()
    metadata = {"name": "main", "namespace": "shop", "uid": "u", "resourceVersion": "1"}
    made.put({"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": metadata, "spec": {}})
    made.put(namespace())
    return made


@pytest.fixture
async def reconciler(store: Store) -> AsyncIterator[Reconciler]:
    """A reconciler whose API server does not answer."""
    configuration = kubernetes_client.Configuration()
    configuration.host = "http://127.0.0.1:1"
    metrics = Metrics(CollectorRegistry())
    cluster = Cluster(kubernetes_client.ApiClient(configuration), metrics)
    databases = Databases()
    yield Reconciler(
        OperatorSettings(operator_namespace="kapsel-system"),
        metrics,
        cluster=cluster,
        store=store,
        databases=databases,
        gatherer=Gatherer(cluster, databases, SecretReader(cluster, 30.0)),
        writer=Writer(cluster, store, Recorder(cluster, "test")),
    )
    await cluster.close()


async def test_a_relay_is_left_alone_while_its_namespace_is_being_deleted(store: Store, reconciler: Reconciler) -> None:
    assert await reconciler.work(RELAY) is not None  # it has tried, and will again
    store.put(namespace(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert await reconciler.work(RELAY) is None
    store.remove(namespace(deletionTimestamp="2026-01-01T00:00:00Z"))
    store.put(namespace())
    assert await reconciler.work(RELAY) is not None


def test_a_namespace_that_was_made_anew_survives_the_end_of_its_predecessor(store: Store) -> None:
    store.put(namespace(uid="n2", resourceVersion="9"))
    store.remove(namespace())
    assert [one.metadata.name for one in store.namespaces()] == ["shop"]

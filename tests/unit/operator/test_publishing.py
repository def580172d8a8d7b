"""The Secrets of generated keys, when the API server does not take all of them."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from kapsel_operator.apply import Writer
from kapsel_operator.cluster import Cluster
from kapsel_operator.configure import Configurer
from kapsel_operator.databases import Databases
from kapsel_operator.errors import ApiError
from kapsel_operator.events import Recorder
from kapsel_operator.gather import Gatherer
from kapsel_operator.memory import Memory
from kapsel_operator.metrics import Metrics
from kapsel_operator.scopes import divide
from kapsel_operator.secret_reader import SecretReader
from kapsel_operator.store import Store
from kapsel_resources.kinds.model import Identity
from kapsel_store.rows import KeyRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FULL, OTHERS = Identity("SigningKey", "full", "out"), [Identity("SigningKey", f"shop-{n}", "out") for n in range(20)]


class ApiServer:
    """A transport with an API server behind it whose namespace `full` takes no Secret."""

    def __init__(self, status: int) -> None:
        self.configuration = SimpleNamespace(host="")
        self.rest_client = self
        self.refusal = status
        self.secrets: set[str] = set()

    async def update_params_for_auth(self, *_: Any) -> None:
        """Nobody has to say who he is."""

    async def request(self, method: str, url: str, **_: Any) -> Any:
        namespace = url.split("/")[4]
        if method == "GET":
            return Answer(404)
        if namespace == "full" and self.refusal != 200:
            return Answer(self.refusal)
        self.secrets.add(namespace)
        return Answer(200)


class Answer:
    def __init__(self, status: int) -> None:
        self.status = status

    async def read(self) -> bytes:
        return json.dumps({"message": "exceeded quota"}).encode()


def key(identity: Identity) -> KeyRow:
    return KeyRow(
        id=UUID(int=1),
        namespace=identity.namespace,
        name=f"generated/{identity.name}",
        version=1,
        algorithm="HMAC-SHA256",
        secret=bytes(32),
        public=None,
        not_before=NOW,
        not_after=None,
    )


async def publish(server: ApiServer, memory: Memory) -> None:
    cluster, store, databases = Cluster(server, Metrics(CollectorRegistry())), Store(), Databases()  # type: ignore[arg-type]
    home = Identity("Relay", "shop", "main")
    specs: dict[str, dict[str, Any]] = {
        "Relay": {"allowedNamespaces": {"from": "All"}},
        "SigningKey": {"algorithm": "HMAC-SHA256", "source": "Generate"},
        "WebhookEndpoint": {
            "relayRef": {"name": "main", "namespace": "shop"},
            "verification": {"none": {}},
            "destinations": [],
        },
    }
    endpoints = [Identity("WebhookEndpoint", one.namespace, "orders") for one in (FULL, *OTHERS)]
    for one in (home, FULL, *OTHERS, *endpoints):
        named = {"name": one.name, "namespace": one.namespace, "uid": str(one), "resourceVersion": "1"}
        kind = {"apiVersion": "kapsel.dev/v1alpha1", "kind": one.kind}
        store.put({**kind, "metadata": named, "spec": specs[one.kind]})
    configurer = Configurer(
        cluster,
        store,
        databases,
        Gatherer(cluster, databases, SecretReader(cluster, 30.0)),
        Writer(cluster, store, Recorder(cluster, "me")),
        actor="me",
        namespaces=(),
    )
    scope = divide(store.all(), []).relays[home]
    await configurer.publish({one: [key(one)] for one in (FULL, *OTHERS)}, scope, memory)


async def test_a_namespace_that_takes_no_secret_is_told_so_and_keeps_nobody_elses_key() -> None:
    server, memory = ApiServer(403), Memory(uid="u")
    await publish(server, memory)
    assert server.secrets == {one.namespace for one in OTHERS}
    assert memory.refusals.keys() == {FULL}
    assert "exceeded quota" in memory.refusals[FULL]


async def test_a_secret_that_could_not_be_written_just_now_is_due_at_once() -> None:
    server, memory = ApiServer(503), Memory(uid="u")
    with pytest.raises(ApiError):
        await publish(server, memory)
    assert memory.is_key_due(0.0)
    server.refusal = 200
    await publish(server, memory)
    assert server.secrets == {FULL.namespace, *(one.namespace for one in OTHERS)}

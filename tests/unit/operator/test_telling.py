"""A status says of which generation it speaks, and never of one that nothing was planned from."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kapsel_operator.apply import BATCH, Writer
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError
from kapsel_operator.events import Recorder
from kapsel_operator.gather import Running
from kapsel_operator.memory import Memory
from kapsel_operator.metrics import Metrics
from kapsel_operator.planned import Basis, Planned
from kapsel_operator.readiness import Plane
from kapsel_operator.scopes import Scope, divide
from kapsel_operator.statuses import View
from kapsel_operator.store import Store
from kapsel_operator.telling import Teller
from kapsel_resources.kinds.model import Identity
from kapsel_store.overview import Generations

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAIN, PATIENT = Identity("Relay", "shop", "main"), Identity("RetryPolicy", "shop", "patient")


class ApiServer:
    """A transport with an API server behind it that holds objects and takes statuses."""

    def __init__(self) -> None:
        self.configuration = SimpleNamespace(host="")
        self.rest_client = self
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.wrote: list[str] = []
        self.refused = ""  # the object whose status is not taken

    def declare(self, identity: Identity, **changes: Any) -> dict[str, Any]:
        """Create an object or change it, and return what a watch shows of it."""
        path = f"{identity.namespace}/{DECLARED[identity.kind]}/{identity.name}"
        self.version += 1
        was = self.objects.get(path, {"metadata": {"generation": 0}})
        named = {"name": identity.name, "namespace": identity.namespace, "uid": path}
        generation = was["metadata"]["generation"] + ("spec" in changes)
        metadata = {**named, "generation": generation, "resourceVersion": str(self.version)}
        metadata |= changes.pop("metadata", {})
        kind = {"apiVersion": "kapsel.dev/v1alpha1", "kind": identity.kind}
        self.objects[path] = {**was, **kind, **changes, "metadata": metadata}
        return self.objects[path]

    async def update_params_for_auth(self, *_: Any) -> None:
        """Nobody has to say who he is."""

    async def request(self, method: str, url: str, *, body: Any, **_: Any) -> Any:
        if method == "POST":
            return Answer({})
        assert (method, "/status?" in url) == ("PATCH", True)
        path = url.partition("/namespaces/")[2].partition("/status?")[0]
        if path == self.refused:
            return Answer({"message": "a webhook denies it"}, status=403)
        self.version += 1
        self.wrote.append(path)
        found = self.objects[path]
        metadata = {**found["metadata"], "resourceVersion": str(self.version)}
        self.objects[path] = {**found, "status": body["status"], "metadata": metadata}
        return Answer(self.objects[path])


class Answer:
    def __init__(self, body: dict[str, Any], status: int = 200) -> None:
        self.status = status
        self._body = json.dumps(body).encode()

    async def read(self) -> bytes:
        return self._body


DECLARED = {"Relay": "relays", "RetryPolicy": "retrypolicies"}


class World:
    """What a Teller works with: the cluster, what is known of it, and one Relay that has a RetryPolicy."""

    def __init__(self) -> None:
        self.server, self.store, self.memory = ApiServer(), Store(), Memory(uid="u")
        metrics = Metrics(CollectorRegistry())
        cluster = Cluster(self.server, metrics)  # type: ignore[arg-type]
        self.writer = Writer(cluster, self.store, Recorder(cluster, "me"))
        self.store.put(self.server.declare(MAIN, spec={}))
        self.store.put(self.server.declare(PATIENT, spec={"maxAttempts": 3}))
        self.view = self._view()

    def scope(self) -> Scope:
        return divide(self.store.all(), self.store.namespaces()).relays[MAIN]

    def _view(self) -> View:
        planned = Planned(
            basis=Basis(scope=self.scope(), secrets={}, url="", generation=1),
            until=NOW + timedelta(hours=1),
            told={},
            endpoints={},
            keys={},
            log=None,
            generations=Generations(endpoints={}, keys={}),
        )
        plane = Plane(generations={"receiver": (1,), "deliverer": (1,)})
        return View(now=NOW, planned=planned, plane=plane, doing={}, url=None)

    async def tell(self, scope: Scope) -> None:
        await Teller(self.store, self.writer).tell(scope, self.view, Running(), self.memory)

    def observed(self) -> int:
        status = self.server.objects["shop/retrypolicies/patient"].get("status", {})
        return int(status.get("observedGeneration", 0))


async def test_a_change_that_came_after_the_plan_is_not_called_ready() -> None:
    world = World()
    scope = world.scope()
    world.store.put(world.server.declare(PATIENT, spec={"maxAttempts": 4}))
    await world.tell(scope)
    assert world.observed() == 0
    await world.tell(world.scope())
    assert world.observed() == 2


async def test_a_generation_that_means_the_same_as_the_last_one_is_observed_too() -> None:
    world = World()
    for _ in range(2):
        await world.tell(world.scope())
    assert (world.observed(), len(world.server.wrote)) == (1, 1)
    assert world.store.put(world.server.declare(PATIENT, spec={"maxAttempts": 3, "retryOn": {}})).declared
    assert world.scope().resources == world.view.planned.basis.scope.resources  # type: ignore[union-attr]
    await world.tell(world.scope())
    assert world.observed() == 2
    await world.tell(world.scope())
    assert len(world.server.wrote) == 2


async def test_what_was_declared_while_a_status_was_written_is_news_when_the_watch_says_it() -> None:
    world = World()
    changed = world.server.declare(PATIENT, spec={"maxAttempts": 4})
    await world.tell(world.scope())
    assert world.store.put(changed).declared


async def test_what_was_deleted_while_its_status_was_written_does_not_come_back() -> None:
    world = World()
    (policy,) = world.store.all("RetryPolicy")
    going = world.server.declare(PATIENT, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    await world.tell(world.scope())
    assert world.store.put(going).declared
    await world.writer.statuses([(policy, {"observedGeneration": 1})])
    assert world.store.find(PATIENT) is None


async def test_a_resource_whose_status_is_refused_keeps_nobody_elses_back_and_is_told_of_when_they_are_written() -> (
    None
):
    world = World()
    many = [Identity("RetryPolicy", "shop", f"p-{number}") for number in range(BATCH)]
    for one in many:
        world.store.put(world.server.declare(one, spec={}))
    world.server.refused = "shop/retrypolicies/p-0"
    with pytest.raises(ApiError, match="a webhook denies it"):
        await world.tell(world.scope())
    assert len(world.server.wrote) == BATCH
    assert world.observed() == 1

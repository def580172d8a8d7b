"""The operator as a process, on a real API server, with a real database; kubelet and data plane are stand-ins."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from faulty_proxy import FaultyProxy
from kubernetes.aio import client as kubernetes_api
from onenode.control_plane import Cluster
from prometheus_client import CollectorRegistry

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_operator.apis import BY_KIND, DECLARED_BY_KIND, Api
from kapsel_operator.cluster import Cluster as OperatorsCluster
from kapsel_operator.errors import ApiError
from kapsel_operator.metrics import Metrics
from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_store import configuration, processes
from kapsel_store import database as store_database
from kapsel_store.migrate import migrate

SCHEMA = "kapsel"


DEADLINE = 240.0  # seconds: far more than anything here takes on a machine that has time
POD = Api("v1", "Pod", "pods")
KINDS = {api.kind: api for api in (*BY_KIND.values(), POD)}


class Client(OperatorsCluster):
    """The operator's own client, and what only people and kubelets do."""

    async def declare(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Apply a manifest as a person does."""
        return await self.apply(manifest, manager="a-person")

    async def merge(self, api: Api, namespace: str, name: str, body: dict[str, Any]) -> None:
        """Change some fields of an object."""
        await self._request("PATCH", api.path(namespace, name), body=body, content_type="application/merge-patch+json")

    async def patch_status(self, api: Api, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Write a status as whoever owns it."""
        path = api.path(namespace, name, "status")
        await self._request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")

    async def finish(self, api: Api, namespace: str, name: str) -> None:
        """Delete an object for good, as a kubelet does with a pod that has ended."""
        await self._request("DELETE", api.path(namespace, name), body={"gracePeriodSeconds": 0})


@pytest.fixture
async def client(api: kubernetes_api.ApiClient) -> Client:
    """A client that may do everything."""
    return Client(api, Metrics(CollectorRegistry()))


@dataclass
class Database:
    """A Postgres database of a Relay's own."""

    name: str
    url: str

    async def migrate(self) -> None:
        """Do what the Job would do."""
        await migrate(self.url, schema=SCHEMA)

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url, server_settings={"search_path": SCHEMA})
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


@pytest.fixture
async def make_database(postgres: EmbeddedPostgres) -> AsyncIterator[Callable[[], Any]]:
    """Make empty databases, as many as a test needs."""
    made: list[str] = []

    async def make() -> Database:
        name = f"relay_{secrets.token_hex(6)}"
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        made.append(name)
        return Database(name=name, url=postgres.url.replace("/kapsel?", f"/{name}?"))

    yield make
    connection = await asyncpg.connect(postgres.url)
    for name in made:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database(make_database: Callable[[], Any]) -> Database:
    """An empty database."""
    return await make_database()


@dataclass
class Operator:
    """Operators of one test: processes that it starts, kills and reads."""

    kubeconfig: Path
    namespace: str
    logs: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    held: list[socket.socket] = field(default_factory=list)

    def start(
        self,
        *,
        kubeconfig: Path | None = None,
        watch: str | None = None,
        program: Sequence[object] = ("-m", "kapsel_operator"),
        **settings: object,
    ) -> "Process":
        """Start one more operator, or a program that is one in its own way."""
        port = self._port()
        chosen = {
            "operator_namespace": self.namespace,
            "operator_watch_namespaces": self.namespace if watch is None else watch,
            "operator_status_interval": 1,
            "operator_secrets_interval": 1,
            "drain_timeout": 60,
            "health_port": port,
            "instance": f"operator-{port}",
            **settings,
        }
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")},
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            **{f"KAPSEL_{name.upper()}": str(value) for name, value in chosen.items() if value != ""},
        }
        log = self.logs / f"operator-{port}.log"
        with log.open("ab") as lines:
            process = subprocess.Popen(
                [sys.executable, *map(str, program)], env=environment, stderr=lines, stdout=subprocess.DEVNULL
            )
        self.running.append(process)
        return Process(process, log, port)

    def _port(self) -> int:
        """Return the port of one more operator, held for it until the end of the test."""
        held = socket.socket()
        self.held.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for held in self.held:
            held.close()
        for log in self.logs.glob("operator-*.log"):
            print(f"{log.name}:\n{log.read_text()[-20000:]}")


@dataclass
class Process:
    """One operator."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    async def metrics(self) -> dict[str, float]:
        """Return its metrics, by name and labels; none as long as it does not answer."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/metrics") as answer,
            ):
                text = await answer.text()
        except aiohttp.ClientError:
            return {}
        split = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in split}

    def lines(self, level: str | None = None) -> list[dict[str, Any]]:
        whole = (line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n"))
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in found if level in (None, line["level"])]


@pytest.fixture
def operator(
    control_plane: Cluster, crds: None, namespace: str, tmp_path: Path, make_database: Callable[[], Any]
) -> Iterator[Operator]:
    """Operators that watch the namespace of the test; they end before the databases do."""
    made = Operator(control_plane.kubeconfig, namespace, tmp_path)
    yield made
    made.stop()


@dataclass
class DataPlane:
    """The processes of a Relay as its database sees them: they report the generation that they have loaded."""

    url: str
    components: dict[str, int] = field(default_factory=lambda: {"receiver": 2, "deliverer": 2, "attestor": 1})
    frozen: int | None = None  # the generation that they do not get beyond

    async def run(self) -> None:
        """Load each new generation, as long as the database is there."""
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                settings = store_database.settings(schema=SCHEMA, role=None, component="test")
                connection = await asyncpg.connect(self.url, server_settings=settings, timeout=5)
                try:
                    while True:
                        await self._report(connection)
                        await asyncio.sleep(0.05)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.1)

    async def _report(self, connection: asyncpg.Connection) -> None:
        generation = await configuration.generation(connection)
        if self.frozen is not None:
            generation = min(generation, self.frozen)
        for component, count in self.components.items():
            for number in range(count):
                await processes.report(connection, component, f"{component}-{number}", "http://127.0.0.1:9", generation)  # type: ignore[arg-type]


@dataclass
class Kubelet:
    """Makes pods Ready that nobody runs, ends those that are deleted, and does the work of migration Jobs."""

    client: Client
    namespace: str
    databases: list[Database] = field(default_factory=list)
    paused: bool = False

    async def run(self) -> None:
        """Look for new pods all the time."""
        while True:
            with suppress(ApiError):  # a busy API server: the next look is soon
                for pod in [] if self.paused else await self.client.list_all(POD, self.namespace):
                    with suppress(ApiError):  # it may have gone meanwhile
                        await self._care(pod)
            await asyncio.sleep(0.3)

    async def _care(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            await self.client.finish(POD, self.namespace, metadata["name"])
        elif pod["status"].get("phase") == "Pending":
            status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            if metadata["labels"].get("app.kubernetes.io/component") == "migrate":
                for database in self.databases:
                    await database.migrate()
                status = {"phase": "Succeeded"}
            await self.client.patch_status(POD, self.namespace, metadata["name"], status)


@pytest.fixture
async def around(client: Client, namespace: str, database: Database) -> AsyncIterator[tuple[Kubelet, DataPlane]]:
    """A stand-in of a kubelet and one of the data plane of the database."""
    kubelet, plane = Kubelet(client, namespace, [database]), DataPlane(database.url)
    tasks = [asyncio.create_task(kubelet.run()), asyncio.create_task(plane.run())]
    yield kubelet, plane
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Resources:
    """What a test declares, and what the cluster says of it."""

    client: Client
    namespace: str

    async def apply(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
        named = {"name": name, "namespace": self.namespace, **metadata}
        await self.client.declare({"apiVersion": GROUP_VERSION, "kind": kind, "metadata": named, "spec": spec})

    async def secret(self, name: str, **entries: str) -> None:
        named = {"name": name, "namespace": self.namespace}
        await self.client.declare({"apiVersion": "v1", "kind": "Secret", "metadata": named, "stringData": entries})

    async def relay(self, database: Database, name: str = "main", **spec: Any) -> None:
        """Declare a Relay on a database, with the Secret of its URL."""
        await self.secret(f"{name}-database", uri=database.url)
        await self.apply("Relay", name, {"database": {"secretRef": {"name": f"{name}-database"}}, **spec})

    async def endpoint(self, name: str, **spec: Any) -> None:
        destinations = [{"name": "one", "url": f"https://{name}.example.com/hooks"}]
        written = {"verification": {"none": {}}, "destinations": destinations, **spec}
        await self.apply("WebhookEndpoint", name, written)

    async def annotate(self, kind: str, name: str, value: str | None) -> None:
        body = {"metadata": {"annotations": {"kapsel.dev/reconcile": value}}}
        await self.client.merge(DECLARED_BY_KIND[kind], self.namespace, name, body)

    async def find(self, kind: str, name: str) -> dict[str, Any] | None:
        return await self.client.get(KINDS[kind], self.namespace, name)

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        found = await self.find(kind, name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    async def delete(self, kind: str, name: str) -> None:
        await self.client.delete(KINDS[kind], self.namespace, name)

    async def condition(self, kind: str, name: str, which: str = "Ready") -> dict[str, Any]:
        """Return a condition, empty if there is none."""
        conditions = (await self.find(kind, name) or {}).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == which), {})

    async def told(
        self, kind: str, name: str, which: str, status: str, reason: str, seconds: float = DEADLINE
    ) -> dict[str, Any]:
        """Wait until a condition says so, and return it."""
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while (last.get("status"), last.get("reason")) != (status, reason):
                    await asyncio.sleep(0.2)
                    last = await self.condition(kind, name, which)
        except TimeoutError:
            raise AssertionError(f"{kind} {name}: {which} is {last}") from None
        return last

    async def ready(self, kind: str, name: str) -> dict[str, Any]:
        return await self.told(kind, name, "Ready", "True", "Available" if kind == "Relay" else "Accepted")

    async def until(self, condition: Callable[[], Awaitable[Any]], seconds: float = DEADLINE) -> Any:
        """Wait until a condition holds and return what it returned."""
        async with asyncio.timeout(seconds):
            while not (found := await condition()):
                await asyncio.sleep(0.2)
            return found


@pytest.fixture
def resources(client: Client, crds: None, namespace: str) -> Resources:
    """The namespace of the test."""
    return Resources(client, namespace)


@pytest.fixture
async def proxy(control_plane: Cluster, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    """What stands between an operator and the API server, for tests that want it to fail."""
    async with FaultyProxy(control_plane.kubeconfig, tmp_path) as made:
        yield made

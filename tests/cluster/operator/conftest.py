"""The operator as a process, on a real API server, with a real database; kubelet and data plane are stand-ins."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from onenode.control_plane import Cluster

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store import configuration, processes
from kapsel_store import database as store_database
from kapsel_store.migrate import migrate

SCHEMA = "kapsel"


async def until(condition: Callable[[], Any], seconds: float = 60.0, every: float = 0.1) -> Any:
    """Wait until a condition holds and return what it returned; fail after a deadline."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                await asyncio.sleep(every)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s") from None


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

    def start(self, *, kubeconfig: Path | None = None, watch: str | None = None, **settings: object) -> "Process":
        """Start one more operator."""
        port = _free_port()
        chosen = {
            "operator_namespace": self.namespace,
            "operator_watch_namespaces": self.namespace if watch is None else watch,
            "operator_status_interval": 1,
            "operator_secrets_interval": 1,
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
                [sys.executable, "-m", "kapsel_operator"], env=environment, stderr=lines, stdout=subprocess.DEVNULL
            )
        self.running.append(process)
        return Process(process, log, port)

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


@dataclass
class Process:
    """One operator."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def lines(self, level: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if level in (None, line["level"])]


@pytest.fixture
def operator(control_plane: Cluster, crds: None, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    """Operators that watch the namespace of the test."""
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
    """Makes pods Ready that nobody runs, and does the work of migration Jobs."""

    cluster: Cluster
    namespace: str
    databases: list[Database] = field(default_factory=list)
    paused: bool = False

    async def run(self) -> None:
        """Look for new pods all the time."""
        while True:
            if not self.paused:
                await asyncio.to_thread(self._look)
                for pod in self._migrating:
                    for database in self.databases:
                        await database.migrate()
                    await asyncio.to_thread(self._status, pod, {"phase": "Succeeded"})
            await asyncio.sleep(0.2)

    _migrating: list[str] = field(default_factory=list)

    def _look(self) -> None:
        found: Any = self.cluster.get("pods", "-n", self.namespace)
        self._migrating = []
        for pod in found["items"]:
            phase, name = pod["status"].get("phase"), pod["metadata"]["name"]
            if phase != "Pending" or pod["metadata"].get("deletionTimestamp"):
                if pod["metadata"].get("deletionTimestamp"):
                    self.cluster.kubectl(
                        "delete", "pod", name, "-n", self.namespace, "--force", "--grace-period=0", check=False
                    )
                continue
            if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "migrate":
                self._migrating.append(name)
                continue
            ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "Initialized")]
            self._status(name, {"phase": "Running", "conditions": ready})

    def _status(self, pod: str, status: dict[str, Any]) -> None:
        self.cluster.kubectl(
            "patch", "pod", pod, "-n", self.namespace, "--subresource=status", "--type=merge", "-p",
            json.dumps({"status": status}), check=False,
        )  # fmt: skip


@pytest.fixture
async def around(
    control_plane: Cluster, namespace: str, database: Database
) -> AsyncIterator[tuple[Kubelet, DataPlane]]:
    """A stand-in of a kubelet and one of the data plane of the database."""
    kubelet, plane = Kubelet(control_plane, namespace, [database]), DataPlane(database.url)
    tasks = [asyncio.create_task(kubelet.run()), asyncio.create_task(plane.run())]
    yield kubelet, plane
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Resources:
    """What a test declares, and what the cluster says of it."""

    cluster: Cluster
    namespace: str

    def apply(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
        self.cluster.apply(
            {
                "apiVersion": "kapsel.dev/v1alpha1",
                "kind": kind,
                "metadata": {"name": name, "namespace": self.namespace, **metadata},
                "spec": spec,
            }
        )

    def secret(self, name: str, **entries: str) -> None:
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": self.namespace},
                "stringData": entries,
            }
        )

    def relay(self, database: Database, name: str = "main", **spec: Any) -> None:
        """Declare a Relay on a database, with the Secret of its URL."""
        self.secret(f"{name}-database", uri=database.url)
        self.apply("Relay", name, {"database": {"secretRef": {"name": f"{name}-database"}}, **spec})

    def endpoint(self, name: str, **spec: Any) -> None:
        destinations = [{"name": "one", "url": f"https://{name}.example.com/hooks"}]
        self.apply("WebhookEndpoint", name, {"verification": {"none": {}}, "destinations": destinations, **spec})

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: Any = self.cluster.get(kind, name, "-n", self.namespace)
        return found

    def condition(self, kind: str, name: str, which: str = "Ready") -> dict[str, Any]:
        """Return a condition, empty if there is none."""
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == which), {})

    async def told(self, kind: str, name: str, which: str, status: str, reason: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a condition says so, and return it."""
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while (last.get("status"), last.get("reason")) != (status, reason):
                    await asyncio.sleep(0.2)
                    last = await asyncio.to_thread(self.condition, kind, name, which)
        except TimeoutError:
            raise AssertionError(f"{kind} {name}: {which} is {last}") from None
        return last

    async def ready(self, kind: str, name: str, seconds: float = 60) -> dict[str, Any]:
        return await self.told(kind, name, "Ready", "True", "Available" if kind == "relay" else "Accepted", seconds)


@pytest.fixture
def resources(control_plane: Cluster, namespace: str) -> Resources:
    """The namespace of the test."""
    return Resources(control_plane, namespace)

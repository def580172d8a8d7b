"""A log on a real Postgres, its fence in the status of an AttestationLog on a real API server, and people around it."""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from onenode.control_plane import Cluster
from prometheus_client import CollectorRegistry
from wires import Opened, Wire

from kapsel_attestor.api_server import ApiServer
from kapsel_attestor.attestor import Attestor
from kapsel_attestor.kubernetes_fence import KubernetesFence
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.places import Statuses
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.seeds import SeedBackend
from kapsel_attestor.signers.signer import Signer
from kapsel_store import configuration, deliveries, ids, tlog
from kapsel_store.configuration import Source
from kapsel_store.database import CONFIGURATION_CHANNEL, Listener
from kapsel_store.rows import (
    AttemptRow,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    LogRow,
    Result,
    Verification,
)
from kapsel_store.states import State
from kapsel_store.tlog import HeadRow, LogState
from kapsel_verifier.note import VerifierKey

TABLES = ("logs", "leaves", "tiles", "heads", "chains", "unsequenced")
DEADLINE = 180.0
QUICK = timedelta(milliseconds=20)
GROUP = "kapsel.dev"


@pytest.fixture
def kit() -> ModuleType:
    """This module, for tests: with importlib mode they cannot import it."""
    return sys.modules[__name__]


async def eventually(look: Callable[..., Any], *arguments: object) -> Any:
    """Return the first true value that `look` gives; fail after a while."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = look(*arguments)
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{look} did not come true"
        await asyncio.sleep(0.02)


@dataclass
class Running:
    """An attestor in this process."""

    attestor: Attestor
    registry: CollectorRegistry
    stopping: asyncio.Event
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.wait_for(self.task, DEADLINE)

    async def well(self) -> None:
        """Wait until nobody has to act: a head is published before its attestor says so."""
        await eventually(lambda: self.attestor.problem() is None)

    def value(self, metric: str, **labels: str) -> float:
        return self.registry.get_sample_value(metric, labels) or 0.0


@dataclass
class World:
    """One log, the AttestationLog that holds its fence, and the service account of its attestors."""

    cluster: Cluster
    namespace: str
    database: Any
    connection: asyncpg.Connection
    account: Path
    line: Wire
    row: LogRow
    key: KeyRow
    destination: DestinationRow
    endpoint: EndpointRow
    running: list[Running] = field(default_factory=list)

    @property
    def api(self) -> ApiServer:
        return ApiServer(self.line.url, self.account)

    def guard(self) -> KubernetesFence:
        return KubernetesFence(self.api, self.namespace, "log", self.row.origin)

    def signer(self) -> Signer:
        backend = SeedBackend(self.key.secret)
        return Signer(
            key=VerifierKey(self.row.origin, backend.public_key()),
            key_id=self.key.id,
            where="the log's key",
            not_before=self.key.not_before,
            not_after=None,
            backend=backend,
            gate=Gate(),
        )

    async def configure(self, row: LogRow) -> None:
        desired = Configuration(endpoints=(self.endpoint,), destinations=(self.destination,), keys=(self.key,), log=row)
        await configuration.apply(self.connection, self.database.sealing, desired, actor="test")

    def declared(self) -> dict[str, object]:
        """Return the AttestationLog as people apply it."""
        return {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "AttestationLog",
            "metadata": self._named("log"),
            "spec": {},
        }

    def account_with(self, *rules: dict[str, object]) -> tuple[dict[str, object], ...]:
        """Return the account with the rights that the operator gives it, and these."""
        status = {"apiGroups": [GROUP], "resources": ["attestationlogs/status"], "resourceNames": ["log"]}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": self._named("attestor")}
        return (
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self._named("attestor")},
            {**role, "kind": "Role", "rules": [{**status, "verbs": ["get", "patch"]}, *rules]},
            {
                **role,
                "kind": "RoleBinding",
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "attestor"},
                "subjects": [{"kind": "ServiceAccount", "name": "attestor", "namespace": self.namespace}],
            },
        )

    def _named(self, name: str) -> dict[str, str]:
        return {"name": name, "namespace": self.namespace}

    async def status(self) -> dict[str, Any]:
        found = await asyncio.to_thread(self.cluster.get, "attestationlog", "log", "-n", self.namespace)
        return found.get("status") or {}

    async def condition(self, kind: str, status: str) -> dict[str, Any]:
        """Wait for a condition and return it."""

        async def look() -> dict[str, Any] | None:
            told = (await self.status()).get("conditions", [])
            return next((one for one in told if (one["type"], one["status"]) == (kind, status)), None)

        return await eventually(look)

    async def record(self, count: int = 1) -> list[UUID]:
        """Record attempts as a deliverer does."""
        made = [
            AttemptRow(
                id=ids.new(),
                delivery_id=uuid4(),
                event_id=uuid4(),
                endpoint_id=self.endpoint.id,
                destination_id=self.destination.id,
                number=1,
                started_at=datetime.now(UTC),
                duration=timedelta(milliseconds=3),
                outcome="delivered",
                reason="status_200",
                url=self.destination.url,
                payload_hash=os.urandom(32),
                payload_commitment=os.urandom(32),
                signature_digest=os.urandom(32),
                response_status=200,
            )
            for _ in range(count)
        ]
        results = [Result(attempt=one, lease_id=uuid4(), state=State.PENDING, retry_in=timedelta(0)) for one in made]
        await deliveries.record(self.connection, results)
        return [one.id for one in made]

    async def start(self, **place: str) -> Running:
        """Start an attestor with the rights that it has in production."""
        pool = await self.database.pool("attestor")
        listener = Listener(
            self.database.url,
            role="kapsel_attestor",
            schema=self.database.schema,
            component="test",
            channels=[CONFIGURATION_CHANNEL],
        )
        source = Source(pool, self.database.sealing, listener)
        stopping = asyncio.Event()
        following = asyncio.create_task(source.follow(stopping))
        await eventually(lambda: source.loaded)
        registry = CollectorRegistry()
        places = Statuses(self.api, self.namespace, place.get("name", "log"))
        attestor = Attestor(pool, source, places.open, Metrics(registry), reporter=places.reporter)

        async def run() -> None:
            await attestor.run(stopping)
            following.cancel()

        started = Running(attestor, registry, stopping, asyncio.create_task(run()))
        self.running.append(started)
        return started

    async def start_process(self) -> asyncio.subprocess.Process:
        """Start an attestor as its container does, with what Kubernetes puts into the environment."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")}
        environment |= {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": self.line.url.rpartition(":")[2],
            "KAPSEL_DATABASE_URL": self.database.url,
            "KAPSEL_DATABASE_ROLE": "kapsel_attestor",
            "KAPSEL_DATABASE_SCHEMA": self.database.schema,
            "KAPSEL_SEALING_KEY_FILE": str(self.database.sealing_key_file),
            "KAPSEL_ATTESTOR_FENCE_LOG": f"{self.namespace}/log",
            "KAPSEL_ATTESTOR_SERVICE_ACCOUNT": str(self.account),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kapsel_attestor", env=environment, stderr=asyncio.subprocess.DEVNULL
        )

    async def log(self) -> LogState:
        found = await tlog.state(self.connection, self.row.origin)
        assert found is not None
        return found

    async def head(self) -> HeadRow | None:
        found = await tlog.state(self.connection, self.row.origin)
        return None if found is None else await tlog.latest_head(self.connection, found.id)

    async def head_over(self, size: int) -> HeadRow:
        """Wait for a head over at least so many leaves."""

        async def look() -> HeadRow | None:
            head = await self.head()
            return head if head is not None and head.tree_size >= size else None

        return await eventually(look)

    async def published(self, leaves: int) -> None:
        """Publish a head over so many leaves more, and stop."""
        size = 0 if await self.head() is None else (await self.log()).tree_size
        running = await self.start()
        await self.record(leaves)
        await self.head_over(size + leaves)
        await running.stop()

    async def back_up(self) -> None:
        """Copy the tables of the log as they are now."""
        for table in TABLES:
            await self.connection.execute(f"CREATE TABLE copy_{table} AS TABLE {table}")

    async def restore(self) -> None:
        """Put the copied tables back, as restoring an older database does."""
        async with self.connection.transaction():
            await self.connection.execute("SET LOCAL session_replication_role = replica")
            for table in reversed(TABLES):
                await self.connection.execute(f"DELETE FROM {table}")
            for table in TABLES:
                await self.connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE copy_{table}")


@pytest.fixture
async def world(control_plane: Cluster, crds: None, namespace: str, database, tmp_path: Path) -> AsyncIterator[World]:
    """A configured log that publishes as fast as it may, its AttestationLog, and an account with the Role for it."""
    view = json.loads(control_plane.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
    server = view["clusters"][0]["cluster"]
    account = tmp_path / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes(base64.b64decode(server["certificate-authority-data"]))
    endpoint = EndpointRow(id=uuid4(), namespace=namespace, name="orders", verification=Verification(scheme="none"))
    where = urlsplit(server["server"])
    assert where.hostname is not None
    connection = await database.connection()

    def there() -> Awaitable[Opened]:
        return asyncio.open_connection(where.hostname, where.port or 443)

    async with Wire(there, lambda port: f"https://127.0.0.1:{port}") as line:
        made = World(
            cluster=control_plane,
            namespace=namespace,
            database=database,
            connection=connection,
            account=account,
            line=line,
            row=LogRow(
                namespace=namespace,
                name="log",
                origin=f"log.example.com/{uuid4().hex[:8]}",
                key_name="log-key",
                integrate_interval=QUICK,
                publish_interval=QUICK,
                publish_pending=1,
            ),
            key=KeyRow(
                id=uuid4(),
                namespace=namespace,
                name="log-key",
                version=1,
                algorithm="Ed25519",
                secret=os.urandom(32),
                not_before=datetime.now(UTC) - timedelta(minutes=1),
            ),
            destination=DestinationRow(
                id=uuid4(), endpoint_id=endpoint.id, name="billing", url="https://billing.example.com/hooks"
            ),
            endpoint=endpoint,
        )
        await made.configure(made.row)
        control_plane.apply(*made.account_with(), made.declared())
        (account / "token").write_text(control_plane.kubectl("create", "token", "attestor", "-n", namespace))
        yield made
        line.mend()
        for running in made.running:
            await running.stop()
    await connection.close()

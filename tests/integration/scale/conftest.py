"""A data plane of many real processes on one database, and somebody who sends to it and counts what comes out."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from nacl.signing import SigningKey
from traffic.destination import Destination
from traffic.producer import Producer

from kapsel_store import configuration, database, partitions
from kapsel_store.rows import (
    Backoff,
    Configuration,
    DestinationRow,
    EndpointRow,
    Idempotency,
    KeyRow,
    LogRow,
    Policy,
    RelayRow,
    Verification,
)
from kapsel_store.sealing import SealingKeys

DEADLINE = 240.0
ENDPOINT = UUID("33333333-3333-4333-8333-333333333333")


class Process:
    """One process of kapsel, and what it logs."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.lines: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.child.stderr is not None
        async for line in self.child.stderr:
            with suppress(json.JSONDecodeError):
                self.lines.append(json.loads(line))

    def logged(self, message: str) -> dict[str, Any] | None:
        return next((line for line in self.lines if message in line["message"]), None)

    async def stop(self) -> None:
        if self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.child.wait(), 240)
        except TimeoutError:
            self.child.kill()
            await self.child.wait()
        await self._reading


@dataclass
class Plane:
    """Receivers, deliverers and attestors on one database."""

    url: str
    schema: str
    directory: Path
    destination: Destination
    direct_url: str | None = None  # besides a URL that leads through a pooler
    roles: bool = True
    running: dict[str, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        key = secrets.token_bytes(32)
        self.sealing = SealingKeys([key])
        self.sealing_key_file = self.directory / "sealing.key"
        self.sealing_key_file.write_text(key.hex() + "\n")

    async def connection(self) -> asyncpg.Connection:
        settings = database.settings(schema=self.schema, role=None, component="test")
        return await asyncpg.connect(self.direct_url or self.url, server_settings=settings)

    async def configure(self, now: Any) -> None:
        """Declare one endpoint with a steady and a shaky destination, and a log."""
        policy = Policy(
            backoff=Backoff(initial=timedelta(milliseconds=50), max=timedelta(milliseconds=500)),
            max_attempts=1000,
            circuit_breaker=None,
        )
        endpoint = EndpointRow(
            id=ENDPOINT,
            namespace="shop",
            name="in",
            verification=Verification(scheme="none"),
            idempotency=Idempotency(source="Header", header="X-GitHub-Delivery"),
        )
        destinations = tuple(
            DestinationRow(
                id=uuid4(),
                endpoint_id=ENDPOINT,
                name=name,
                url=f"{self.destination.url}/{name}",
                policy=policy,
                timeout=timedelta(seconds=60),
                key_name="standard/out",
            )
            for name in ("steady", "shaky")
        )
        signing = SigningKey.generate()
        key = KeyRow(
            id=uuid4(),
            namespace="shop",
            name="log",
            version=1,
            algorithm="Ed25519",
            secret=bytes(signing),
            public=bytes(signing.verify_key),
            not_before=now,
            not_after=None,
        )
        out = replace(key, id=uuid4(), name="standard/out", algorithm="HMAC-SHA256", secret=bytes(24), public=None)
        desired = Configuration(
            relay=RelayRow(allowed_cidrs=("127.0.0.0/8",), allow_http=True),
            endpoints=(endpoint,),
            destinations=destinations,
            keys=(key, out),
            log=LogRow(
                namespace="shop",
                name="log",
                origin="scale.test/log",
                key_name="log",
                integrate_interval=timedelta(milliseconds=50),
                publish_interval=timedelta(seconds=1),
            ),
        )
        connection = await self.connection()
        try:
            await partitions.maintain(connection, now)
            await configuration.apply(connection, self.sealing, desired, actor="test")
        finally:
            await connection.close()

    async def start(self, component: str, number: int = 0, **settings: str) -> Process:
        """Start one process of a component."""
        name = f"{component}-{number}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")} | {
            "KAPSEL_DATABASE_URL": self.url,
            "KAPSEL_DATABASE_SCHEMA": self.schema,
            "KAPSEL_SEALING_KEY_FILE": str(self.sealing_key_file),
            "KAPSEL_INSTANCE": name,
        }
        if self.roles:
            environment["KAPSEL_DATABASE_ROLE"] = f"kapsel_{component}"
        if self.direct_url is not None:
            environment["KAPSEL_DATABASE_DIRECT_URL"] = self.direct_url
        if component == "receiver":
            environment["KAPSEL_RECEIVER_PORT"] = "0"
        if component == "attestor":
            environment["KAPSEL_ATTESTOR_FENCE_FILE"] = str(self.directory / "fence")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"kapsel_{component}"),
            env=environment | settings,
            stderr=asyncio.subprocess.PIPE,
        )
        self.running[name] = Process(child)
        return self.running[name]

    async def producer(self, receiver: Process) -> Producer:
        """Return somebody who posts to that receiver."""
        await until(lambda: receiver.logged("taking webhooks") is not None or receiver.child.returncode is not None)
        line = receiver.logged("taking webhooks")
        assert line is not None, receiver.lines
        return Producer(f"http://127.0.0.1:{line['port']}/ingest/shop/in")

    async def kill(self, name: str) -> None:
        """Kill a process with no chance to clean up."""
        self.running[name].child.kill()
        await self.running[name].child.wait()

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.running.values()))

    def faults(self) -> list[str]:
        """Return what any of them logged as an error of its own."""
        return [
            f"{name}: {line['message']}"
            for name, process in self.running.items()
            for line in process.lines
            if line.get("level") in ("error", "critical")
        ]


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until a condition holds; fail after a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def destination() -> AsyncIterator[Destination]:
    made = Destination()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def planes() -> type[Plane]:
    return Plane


@pytest.fixture(name="until")
def waiting() -> Callable[..., Any]:
    return until

"""Which processes make up a data plane on one machine, and what each of them is told.

Called by the supervisor. Every component gets the settings of its own and no others, for it refuses what it does not
know.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kapsel_cli import probe
from kapsel_cli.children import ChildPlan
from kapsel_cli.family import Family
from kapsel_cli.ports import LOCAL, ORDER, Ports, count
from kapsel_cli.postgres import EmbeddedPostgres

DRAIN_SECONDS: Final = 10.0
# A component that has drained still writes its last words; after that it hangs.
GRACE_SECONDS: Final = 3.0
# Where a component reads the URL of the database, after its imports: they need no database, and can be done before.
TOLD: Final = "/dev/stdin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One process of the data plane."""

    kind: str
    name: str  # receiver-1; the only one of its kind goes without a number
    health_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all processes of one data plane are told."""

    database_url: Callable[[], Awaitable[str]]  # asked at each start: who is started before there is one waits for it
    database_direct_url: str | None  # None: the other one leads to Postgres itself
    roles: bool  # whether each component has a database role of its own
    schema: str
    host: str
    ports: Ports
    sealing_key: Path
    fence_file: Callable[[], Path]  # asked at each start: it belongs to the log, and that may be another one by then
    family: Family


def components(workers: int, ports: Ports) -> list[Component]:
    """Return the processes to run."""
    kinds = [kind for kind in ORDER for _ in range(count(kind, workers))]
    found = []
    for index, (kind, port) in enumerate(zip(kinds, ports.health, strict=True)):
        number = kinds[: index + 1].count(kind)
        name = kind if kinds.count(kind) == 1 else f"{kind}-{number}"
        found.append(Component(kind=kind, name=name, health_port=port))
    return found


def component_plan(component: Component, around: Surroundings) -> ChildPlan:
    """Return how a component is started and known to be ready."""

    async def command() -> list[str]:
        # -P: a file of the working directory must not stand in for a module of the same name.
        return [sys.executable, "-P", "-m", f"kapsel_{component.kind}"]

    async def is_ready(_: int) -> bool:
        return await probe.is_ready(LOCAL, component.health_port)

    async def told() -> bytes:
        return (await around.database_url()).encode()

    def options() -> Mapping[str, Any]:
        environment = {
            # What is not about kapsel, such as certificates to trust, comes from the person's own environment.
            **{name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")},
            **{f"KAPSEL_{name.upper()}": str(value) for name, value in settings(component, around).items()},
        }
        return {**around.family.spawn_options(), "env": environment}

    return ChildPlan(
        name=component.name,
        command=command,
        options=options,
        is_ready=is_ready,
        told=told,
        is_vital=component.kind in ("receiver", "deliverer"),
        ready_seconds=120.0 if component.kind in ("receiver", "deliverer") else 30.0,  # two, or a busy machine
        stop_seconds=DRAIN_SECONDS + GRACE_SECONDS,
    )


def settings(component: Component, around: Surroundings) -> dict[str, object]:
    """Return the settings of one component by name."""
    common: dict[str, object] = {
        "database_url_file": TOLD,
        "database_schema": around.schema,
        "sealing_key_file": around.sealing_key,
        "instance": f"{socket.gethostname()}-{component.name}",
        "health_host": LOCAL,
        "health_port": component.health_port,
        "drain_timeout": DRAIN_SECONDS,
    }
    if around.database_direct_url is not None:
        common["database_direct_url"] = around.database_direct_url
    if around.roles:
        common["database_role"] = f"kapsel_{component.kind}"
    own: dict[str, dict[str, object]] = {
        "receiver": {"receiver_host": around.host, "receiver_port": around.ports.ingest},
        "deliverer": {},
        "attestor": {"attestor_fence_file": around.fence_file()},
        "console": {"console_host": LOCAL, "console_port": around.ports.console},
    }
    return common | own[component.kind]


def postgres_plan(postgres: EmbeddedPostgres) -> ChildPlan:
    """Return how the embedded Postgres is started and known to be ready."""

    async def command() -> list[str]:
        await asyncio.to_thread(postgres.prepare)
        return postgres.command()

    async def is_ready(pid: int) -> bool:
        return postgres.is_ready(pid)

    return ChildPlan(
        name="postgres",
        command=command,
        options=postgres.spawn_options,
        is_ready=is_ready,
        stop_signal=signal.SIGINT,  # a fast shutdown: clients are sent away
        ready_seconds=120.0,
        stop_seconds=20.0,
    )

"""The whole of kapsel as its users run it: `kapsel up` on a directory, with a destination and a producer beside it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import pytest
import yaml
from traffic import manifests
from traffic.destination import Destination

from kapsel_cli.postgres import EmbeddedPostgres

START_SECONDS: Final = 180.0


class Up:
    """One `kapsel up` process on a data directory that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifests = directory / "manifests"
        self.data_dir = directory / "data"
        self.log = directory / "up.log"
        self.state: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def database_url(self) -> str:
        return EmbeddedPostgres(self.data_dir).url

    async def start(self, *arguments: str) -> None:
        """Start it and wait until it says where it can be reached."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kapsel_cli", "up", str(self.manifests)),
                *("--data-dir", str(self.data_dir), "--port", "0", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(START_SECONDS):
            while not self._read_state():
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    def _read_state(self) -> bool:
        assert self._process is not None
        with suppress(FileNotFoundError, json.JSONDecodeError):
            self.state = json.loads((self.data_dir / "up.json").read_text())
        return self.state.get("pid") == self._process.pid

    async def stop(self) -> int:
        """Drain it and return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), 180)

    async def kill(self) -> None:
        """Kill the supervisor itself, with no chance to stop its children."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def child(self, name: str) -> psutil.Process | None:
        """Return a running child: a component's process, or the postmaster."""
        assert self._process is not None
        mark = "/bin/postgres -D" if name == "postgres" else f"kapsel_{name}"
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if mark in " ".join(child.cmdline()):
                        return child
        return None

    @property
    def ingest(self) -> str:
        return f"{self.state['ingest']}/ingest/crash/in"

    async def connection(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.database_url, server_settings={"search_path": "kapsel"})


@pytest.fixture
async def destination() -> AsyncIterator[Destination]:
    made = Destination()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def up(tmp_path: Path, destination: Destination) -> AsyncIterator[Up]:
    """A `kapsel up` that has not been started yet."""
    made = Up(tmp_path)
    made.manifests.mkdir()
    declared = manifests("crash", destination.url, {"egress": {"allowedCIDRs": ["127.0.0.0/8"], "allowHTTP": True}})
    (made.manifests / "crash.yaml").write_text(yaml.safe_dump_all(declared))
    yield made
    with suppress(AssertionError, ProcessLookupError):
        await made.stop()
    if os.environ.get("CI"):
        print(made.log.read_text() if made.log.exists() else "")

"""A machine that vanishes: its connections are never closed, and the lock of a log that was held over one comes free.

The machine is a network namespace whose cable is pulled. Made and removed by root alone.
"""

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from traffic import within

from kapsel_cli.postgres import DATABASE, SUPERUSER, EmbeddedPostgres, Listen
from kapsel_store import database, tlog
from kapsel_store.migrate import migrate

SCHEMA = "kapsel"
# Takes two locks, and dies with an answer under way over one of the connections and nothing over the other.
MACHINE = """
import asyncio, sys, time
from kapsel_store import database, tlog

async def main():
    connect = lambda: database.connect(sys.argv[1], role=None, schema=sys.argv[2], size=1, component="attestor")
    async with connect() as idle, connect() as busy, idle.acquire() as still, busy.acquire() as answered:
        assert await tlog.try_lock(still, "still")
        assert await tlog.try_lock(answered, "answered")
        asking = asyncio.create_task(answered.execute("SELECT repeat('x', 200000000)"))
        for _ in range(10):
            await asyncio.sleep(0)
        time.sleep(3600)  # reads no more

asyncio.run(main())
"""


@dataclass(frozen=True)
class Machine:
    """A host with an address of its own, and the address at which it reaches this one."""

    name: str
    gateway: str

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def pull_the_cable(self) -> None:
        _ip("-n", self.name, "link", "set", "wire", "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machine() -> Iterator[Machine]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        assert not os.environ.get("CI"), "run as root on Linux, with iproute2: apt-get install iproute2"
        pytest.skip("a network namespace is made by root on Linux, with ip: apt-get install iproute2")
    number = secrets.randbelow(2**15)
    here, there = (f"198.18.{number >> 7}.{(number & 127) * 2 + end}" for end in (0, 1))  # RFC 2544, and RFC 3021
    made = Machine(name=f"kapsel-{number:x}", gateway=here)
    wire = f"kapsel{number:x}"
    _ip("netns", "add", made.name)
    try:
        _ip("link", "add", wire, "type", "veth", "peer", "name", "wire", "netns", made.name)
        _ip("address", "add", f"{here}/31", "dev", wire)
        _ip("link", "set", wire, "up")
        _ip("-n", made.name, "address", "add", f"{there}/31", "dev", "wire")
        _ip("-n", made.name, "link", "set", "wire", "up")
        yield made
    finally:
        subprocess.run(["ip", "link", "delete", wire], check=False, capture_output=True)
        _ip("netns", "delete", made.name)


@pytest.fixture
async def server(machine: Machine, tmp_path: Path) -> AsyncIterator[tuple[EmbeddedPostgres, str]]:
    """A Postgres that listens on the wire, and its URL there."""
    password = secrets.token_hex(16)
    made = EmbeddedPostgres(tmp_path, listen=Listen(host=machine.gateway, port=5432, password=password))
    try:
        made.start()
        await migrate(made.url, schema=SCHEMA)
        yield made, f"postgresql://{SUPERUSER}:{password}@{machine.gateway}:5432/{DATABASE}"
    finally:
        made.stop()


async def test_the_lock_of_an_attestor_comes_free_when_its_machine_vanishes(
    machine: Machine, server: tuple[EmbeddedPostgres, str], eventually
) -> None:
    postgres, url = server
    child = await asyncio.create_subprocess_exec(*machine.command(sys.executable, "-c", MACHINE, url, SCHEMA))
    try:
        async with (
            database.connect(postgres.url, role=None, schema=SCHEMA, size=1, component="test") as pool,
            pool.acquire() as here,
        ):

            async def stuck() -> bool:
                assert child.returncode is None
                return await here.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'")

            await eventually(stuck)
            assert [await tlog.try_lock(here, name) for name in ("still", "answered")] == [False, False]
            machine.pull_the_cable()
            with within(25):
                for name in ("still", "answered"):
                    await eventually(lambda name=name: tlog.try_lock(here, name))
    finally:
        child.kill()
        await child.wait()

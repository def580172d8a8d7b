"""`kapsel secret` as people run it, on the data directory of a `kapsel up` whose database runs."""

import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from nacl.signing import SigningKey, VerifyKey

from kapsel_cli.data_dir import DataDir, Running
from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_cli.supervisor import SCHEMA
from kapsel_deliverer.signing import Signer
from kapsel_store import audit, configuration
from kapsel_store.database import settings
from kapsel_store.migrate import migrate
from kapsel_store.rows import Configuration, KeyRow
from kapsel_store.sealing import SealingKeys

NOW = datetime.now(UTC)
PAIR = SigningKey(bytes(range(32)))
SHARED = KeyRow(
    id=uuid4(),
    namespace="shop",
    name="endpoint/orders",
    version=1,
    algorithm="HMAC-SHA256",
    secret=os.urandom(32),
    not_before=NOW - timedelta(hours=1),
)
OUT = replace(
    SHARED,
    id=uuid4(),
    name="generated/out",
    algorithm="Ed25519",
    secret=bytes(PAIR),
    public=bytes(PAIR.verify_key),
)
NEXT = replace(OUT, id=uuid4(), version=2, not_before=NOW + timedelta(days=1))  # it may be hours since this was read


@dataclass
class Place:
    """A data directory in use, and the command run beside it."""

    data: DataDir
    connection: asyncpg.Connection

    def __call__(self, *arguments: str, data_dir: Path | None = None) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "kapsel_cli", "secret", *arguments]
        at = ["--data-dir", str(data_dir or self.data.path)]
        return subprocess.run([*command, *at], capture_output=True, text=True, timeout=240, check=False)

    async def looks(self) -> list[str]:
        entries = await audit.page(self.connection, before=None, limit=10)
        return [entry.subject for entry in entries if entry.action == "key.reveal"]


@pytest.fixture
async def place(postgres: EmbeddedPostgres) -> AsyncIterator[Place]:
    """What `kapsel up` has on disk and in its database while it runs."""
    data = DataDir(postgres.data_dir)
    data.ensure_sealing_key()
    data.write_state(Running(pid=os.getpid(), ingest="", console="", metrics={}))
    await migrate(postgres.url, schema=SCHEMA)
    connection = await asyncpg.connect(
        postgres.url, server_settings=settings(schema=SCHEMA, role=None, component="test")
    )
    sealing = SealingKeys.from_file(data.sealing_key)
    await configuration.apply(connection, sealing, Configuration(keys=(SHARED, OUT, NEXT)), actor="test")
    yield Place(data, connection)
    await connection.execute("SET client_min_messages = warning")
    await connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    await connection.close()
    data.sealing_key.unlink()
    (data.path / "up.json").unlink()


async def test_a_shared_secret_is_one_line_and_checks_what_is_delivered(place: Place) -> None:
    ran = place("shop/orders")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"whsec_{base64.b64encode(SHARED.secret).decode()}\n"
    assert await place.looks() == ["key shop/endpoint/orders version 1"]


async def test_of_a_key_pair_the_public_half_is_shown_and_the_other_versions_are_told(place: Place) -> None:
    ran = place("shop/out")
    assert ran.returncode == 0
    assert "2 (--version N)" in ran.stderr
    public = base64.b64decode(ran.stdout.removeprefix("whpk_"))
    signature = Signer([OUT]).sign("id", 1, b"{}", NOW)
    assert signature is not None
    VerifyKey(public).verify(b"id.1.{}", base64.b64decode(signature.removeprefix("v1a,")))
    assert place("out", "--version", "2").returncode == 0
    assert await place.looks() == ["key shop/generated/out version 2", "key shop/generated/out version 1"]


async def test_what_is_not_shown_is_not_audited(place: Place) -> None:
    ran = place("shop/order")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "kapsel: there is no key shop/order. The nearest names are: shop/orders, shop/out.\n"
    assert place("shop/out", "--version", "0").returncode == 2
    assert await place.looks() == []


async def test_without_the_right_sealing_key_nothing_is_shown(place: Place) -> None:
    place.data.sealing_key.write_text("00" * 32 + "\n")
    ran = place("shop/orders")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "the keys cannot be opened" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


async def test_a_kapsel_that_does_not_run_or_has_died_is_said_in_one_sentence(place: Place, tmp_path: Path) -> None:
    ran = place("shop/orders", data_dir=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"no kapsel is running on {tmp_path}" in ran.stderr
    died = DataDir(tmp_path / "died")
    died.path.mkdir()
    died.ensure_sealing_key()
    died.write_state(Running(pid=12345, ingest="", console="", metrics={}))
    ran = place("shop/orders", data_dir=died.path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "the database of `kapsel up` (pid 12345) cannot be read" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    url = EmbeddedPostgres(place.data.path).url
    assert "cannot be opened" in place("shop/orders", "--database-url", url, data_dir=died.path).stderr
    (died.path / "sealing.key").write_bytes(place.data.sealing_key.read_bytes())
    assert place("shop/orders", "--database-url", url, data_dir=died.path).stdout.startswith("whsec_")

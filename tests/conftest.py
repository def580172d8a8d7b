"""The real Postgres that tests run on: one embedded server a session, one migrated schema a test."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store import database as store_database
from kapsel_store.migrate import migrate
from kapsel_store.sealing import SealingKeys

# The same examples in each run, however slow: what a test finds does not depend on the day or on the machine.
hypothesis.settings.register_profile(
    "kapsel", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("kapsel")


@dataclass
class Database:
    """One schema on the test server, with the pools that a test opened on it."""

    url: str
    schema: str
    sealing_key_file: Path
    sealing: SealingKeys
    _pools: list[store_database.Pool] = field(default_factory=list)

    async def pool(self, role: str | None = None, size: int = 4, **settings: bool) -> store_database.Pool:
        """Open a pool that is closed with the test; `role` is a component, such as "receiver"."""
        pool = await store_database.connect(
            self.url,
            role=None if role is None else f"kapsel_{role}",
            schema=self.schema,
            size=size,
            component=role or "test",
            **settings,
        )
        self._pools.append(pool)
        return pool

    async def connection(self, role: str | None = None) -> asyncpg.Connection:
        """Open one connection of its own."""
        settings = store_database.settings(
            schema=self.schema, role=None if role is None else f"kapsel_{role}", component="test"
        )
        return await asyncpg.connect(self.url, server_settings=settings)

    async def cloned(self) -> "Database":
        """Return another schema on the same server, migrated and empty; whoever asked for it closes it."""
        schema = f"test_{secrets.token_hex(6)}"
        await migrate(self.url, schema=schema)
        return replace(self, schema=schema, _pools=[])

    async def close(self) -> None:
        for pool in self._pools:
            pool.terminate()
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute("SET client_min_messages = warning")
            await connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running embedded Postgres."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def database(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Database]:
    """A fresh schema with all migrations applied."""
    key = secrets.token_bytes(32)
    key_file = tmp_path / "sealing.key"
    key_file.write_text(key.hex() + "\n")
    schema = f"test_{secrets.token_hex(6)}"
    await migrate(postgres.url, schema=schema)
    made = Database(url=postgres.url, schema=schema, sealing_key_file=key_file, sealing=SealingKeys([key]))
    yield made
    await made.close()

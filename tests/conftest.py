"""The real Postgres that tests run on: one embedded server a session, one copy of a migrated database a test."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from kapsel_cli.postgres import DATABASE, EmbeddedPostgres
from kapsel_store import database as store_database
from kapsel_store.migrate import migrate
from kapsel_store.sealing import SealingKeys

# The same examples in each run, however slow: what a test finds does not depend on the day or on the machine.
hypothesis.settings.register_profile(
    "kapsel", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("kapsel")


SCHEMA = "test"
TEMPLATE = "template_kapsel"
# No test cuts the power: what Postgres hands to the kernel survives a kill of it, and waits for no disk.
POWER_CUT_ONLY = ("fsync", "full_page_writes")


@dataclass
class Database:
    """One database on the test server, with the pools that a test opened on it."""

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
        """Return another schema in the same database, migrated and empty; whoever asked for it closes it."""
        schema = f"test_{secrets.token_hex(6)}"
        await migrate(self.url, schema=schema)
        return replace(self, schema=schema, _pools=[])

    async def close(self) -> None:
        for pool in self._pools:
            pool.terminate()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running embedded Postgres."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    asyncio.run(
        _execute(server.url, *(f"ALTER SYSTEM SET {name} = off" for name in POWER_CUT_ONLY), "SELECT pg_reload_conf()")
    )
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """A database with all migrations applied, to make copies of: a copy costs a fraction of them."""
    asyncio.run(_execute(postgres.url, f"CREATE DATABASE {TEMPLATE}"))
    asyncio.run(migrate(_called(postgres.url, TEMPLATE), schema=SCHEMA))
    return TEMPLATE


@pytest.fixture
async def database(postgres: EmbeddedPostgres, template: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A fresh database with all migrations applied."""
    key = secrets.token_bytes(32)
    key_file = tmp_path / "sealing.key"
    key_file.write_text(key.hex() + "\n")
    name = f"test_{secrets.token_hex(6)}"
    # Copying the files is the cheaper strategy of the two by far, as nothing waits for the disk.
    await _execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    made = Database(
        url=_called(postgres.url, name), schema=SCHEMA, sealing_key_file=key_file, sealing=SealingKeys([key])
    )
    yield made
    await made.close()
    await _execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def _called(url: str, name: str) -> str:
    """Return where the database of this name is on the same server."""
    return url.replace(f"/{DATABASE}?", f"/{name}?")


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for one in statements:
            await connection.execute(one)
    finally:
        await connection.close()

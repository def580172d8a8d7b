"""Brings a schema to the version this code needs: numbered SQL files, each applied once, in order, checked for ever.

Each is applied in a transaction of its own, so that none keeps its locks while the next one works, and what was done is
done when another one fails. Called by `kapsel up`, by the migration Job of an operator and by the tests. Migrations
expand first and contract in a later release, so that old and new processes can run side by side while a rollout lasts.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Final

import asyncpg

from kapsel_store.database import CONNECT_TIMEOUT, Connection, settings
from kapsel_store.errors import BusySchemaError, EditedMigrationError, NewerSchemaError, OldServerError
from kapsel_store.queries import statement

OLDEST_SERVER = 16
PATIENCE: Final = timedelta(minutes=10)
PAUSE: Final = 1.0  # seconds in which those who waited behind a step get their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered SQL file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> bytes:
        return hashlib.sha256(self.sql.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What was done: the names of the migrations applied now, and whether each component has a role of its own."""

    applied: tuple[str, ...]
    roles: bool


def known() -> tuple[Migration, ...]:
    """Return the migrations this code ships, in order."""
    folder = files("kapsel_store") / "sql" / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(
        Migration(number=int(name[:4]), name=name, sql=(folder / name).read_text(encoding="utf-8")) for name in names
    )


async def migrate(
    url: str, *, schema: str, migrations: tuple[Migration, ...] | None = None, patience: timedelta = PATIENCE
) -> Migrated:
    """Apply what is missing, each migration in a transaction of its own; `patience` is for the locks of each of them.

    Raises OldServerError, NewerSchemaError, EditedMigrationError or BusySchemaError, all of them SchemaError.
    """
    migrations = known() if migrations is None else migrations
    connection = await asyncpg.connect(
        url, timeout=CONNECT_TIMEOUT, server_settings=settings(schema=schema, role=None, component="migrate")
    )
    applied: list[str] = []
    try:
        if connection.get_server_version().major < OLDEST_SERVER:
            raise OldServerError(_too_old(connection))
        while True:
            migration, roles = await _patiently(connection, schema, migrations, patience)
            # A crash here leaves a schema that the version before works on; whoever migrates next goes on from it.
            if migration is not None:
                applied.append(migration.name)
            if roles is not None:
                return Migrated(applied=tuple(applied), roles=roles)
    finally:
        await connection.close()


_Step = tuple[Migration | None, bool | None]  # what was applied, and after the last one whether there are roles


async def _patiently(
    connection: Connection, schema: str, migrations: tuple[Migration, ...], patience: timedelta
) -> _Step:
    """Take the next step, again and again while others hold what it must lock."""
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            return await _step(connection, schema, migrations)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if time.monotonic() >= deadline:
                raise BusySchemaError(
                    f"a migration has not got the locks that it needs within {patience}: {error}; end the transactions "
                    "that have been open for so long (pg_stat_activity says which), and migrate again"
                ) from error
        await asyncio.sleep(PAUSE)


async def _step(connection: Connection, schema: str, migrations: tuple[Migration, ...]) -> _Step:
    """Apply the first migration that is missing; with the last one come the rights of all components."""
    async with connection.transaction():
        await connection.execute(statement("migrate.lock"), schema)
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_identifier(schema)}")
        await connection.execute(statement("migrate.ledger"))
        missing = _missing(await connection.fetch(statement("migrate.applied")), migrations)
        await connection.execute(statement("migrate.lock_timeout"))
        for migration in missing[:1]:
            await connection.execute(migration.sql)
            await connection.execute(statement("migrate.done"), migration.number, migration.name, migration.checksum)
        roles = await _grant(connection, schema) if len(missing) <= 1 else None
    # A crash before the commit leaves the schema as it was.
    return (missing[0] if missing else None), roles


async def missing(connection: Connection) -> tuple[Migration, ...]:
    """Return the migrations that a schema lacks, without applying any; raise SchemaError as `migrate` does."""
    if connection.get_server_version().major < OLDEST_SERVER:
        raise OldServerError(_too_old(connection))
    try:
        applied = await connection.fetch(statement("migrate.applied"))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        applied = []  # nothing of kapsel has ever been here
    return _missing(applied, known())


async def has_roles(connection: Connection) -> bool:
    """Return whether each component has a role of its own on this server."""
    return bool(await connection.fetchval(statement("migrate.roles_exist")))


def _missing(applied: list[asyncpg.Record], migrations: tuple[Migration, ...]) -> tuple[Migration, ...]:
    ours = {migration.number: migration for migration in migrations}
    for row in applied:
        migration = ours.get(row["number"])
        if migration is None:
            raise NewerSchemaError(
                f"the database's schema has migration {row['name']}, which this version of kapsel does not know: "
                "a newer kapsel has been here; upgrade this one, or restore the database from before the upgrade"
            )
        if migration.checksum != row["checksum"]:
            raise EditedMigrationError(
                f"migration {row['name']} was applied with other content than this version of kapsel ships: "
                "applied migrations must never be edited; install the version that applied it"
            )
    done = {row["number"] for row in applied}
    return tuple(migration for migration in migrations if migration.number not in done)


async def _grant(connection: Connection, schema: str) -> bool:
    """Give each component a role with the least it needs; False if this user may not make roles and there are none."""
    if not (
        await connection.fetchval(statement("migrate.may_make_roles"))
        or await connection.fetchval(statement("migrate.roles_exist"))
    ):
        return False
    text = (files("kapsel_store") / "sql" / "roles.sql").read_text(encoding="utf-8")
    await connection.execute(text.replace(":schema", _identifier(schema)))
    return True


def _too_old(connection: Connection) -> str:
    found = connection.get_server_version().major
    return f"kapsel needs Postgres {OLDEST_SERVER} or newer; this server is version {found}"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""`kapsel run migrate`: brings the schema of one database to the version of this code, and ends.

Run by the operator's migration Job, and by people who run the processes themselves. Exit codes: 0 the schema is
current, 1 it is not and the last line says why, 2 settings that cannot be used. Running it again does no harm.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg
from pydantic import Field

from kapsel_runtime.backoff import reconnecting
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.process import EXIT_FAILED, EXIT_SETTINGS
from kapsel_runtime.settings import DatabaseSettings, load
from kapsel_store import database, partitions
from kapsel_store.errors import SchemaError
from kapsel_store.migrate import Migrated, migrate
from kapsel_store.partitions import Maintained

# The server answers, and will answer the same the next time: a person must change something.
_REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)


class MigrateSettings(DatabaseSettings):
    """What can be set of a migration."""

    migrate_timeout: float = Field(
        default=120.0,
        gt=0,
        le=86400,
        description="Seconds for which a database that is away is asked again. Default 120: a database that is created "
        "together with this gets there, and what takes longer is better seen.",
    )


class MigrationFailedError(Exception):
    """One sentence: why the schema is not current."""


async def bring_up_to_date(settings: MigrateSettings) -> list[str]:
    """Migrate, make partitions, and return in sentences what was done; waits for a database that is away."""
    deadline = time.monotonic() + settings.migrate_timeout
    waits = reconnecting()
    told = ""
    while True:
        try:
            return await _once(settings)
        except asyncpg.ClientConfigurationError as error:
            raise SettingsError(f"KAPSEL_DATABASE_URL cannot be used: {_reason(error)}.") from error
        except SchemaError as error:
            raise MigrationFailedError(f"{error}.") from error
        except _REFUSED as error:
            raise MigrationFailedError(
                f"the database refuses: {_reason(error)}. Correct its URL or its rights."
            ) from error
        except Exception as error:
            if not database.is_away(error):
                raise
            if time.monotonic() > deadline:
                away = f"the database was away for {settings.migrate_timeout:g} s: {_reason(error)}."
                raise MigrationFailedError(away) from error
            if _reason(error) != told:
                told = _reason(error)
                _say(f"waiting for the database: {told}")
        await asyncio.sleep(next(waits))


async def _once(settings: MigrateSettings) -> list[str]:
    url, schema = settings.session_url, settings.database_schema
    migrated = await migrate(url, schema=schema)
    async with (
        database.connect(url, role=None, schema=schema, size=1, component="migrate") as pool,
        pool.acquire() as connection,
    ):
        maintained = await partitions.maintain(connection, datetime.now(UTC))
    return _told(schema, migrated, maintained)


def _told(schema: str, migrated: Migrated, maintained: Maintained) -> list[str]:
    applied = f"applied {', '.join(migrated.applied)}" if migrated.applied else "was current already"
    roles = "each component has a role of its own" if migrated.roles else "all components share the rights of this user"
    return [f"schema {schema}: {applied}; {roles}", *_partitions(maintained)]


def _partitions(maintained: Maintained) -> list[str]:
    changes = (("made", maintained.made), ("dropped", maintained.dropped))
    return [f"partitions {verb}: {', '.join(names)}" for verb, names in changes if names]


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def _say(line: str) -> None:
    sys.stderr.write(f"kapsel-migrate: {line}\n")


def main(arguments: Sequence[str]) -> int:
    """Run with the settings of the environment and return the exit code."""
    if arguments:
        _say(f"{' '.join(arguments)}: it takes no arguments, only settings (docs/settings.md).")
        return EXIT_SETTINGS
    try:
        settings = load(MigrateSettings, os.environ)
        done = asyncio.run(bring_up_to_date(settings))
    except SettingsError as error:
        _say(str(error))
        return EXIT_SETTINGS
    except MigrationFailedError as error:
        _say(str(error))
        return EXIT_FAILED
    for line in done:
        _say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

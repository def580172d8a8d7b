"""The database that `kapsel log` works on: what the environment names, as in a pod, or a data directory's own.

A data directory on which no `kapsel up` runs gets its Postgres started for as long as the command takes.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import asyncpg

from kapsel_cli.client import DATA_DIR
from kapsel_cli.data_dir import DataDir, lives, read_state
from kapsel_cli.errors import CliError, DataInUseError
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.settings import DatabaseSettings, load
from kapsel_store import database
from kapsel_store.database import Connection

DEFAULT_SCHEMA: Final = "kapsel"
STATEMENT_SECONDS: Final = 300.0  # a person waits, and a log can be large
# Of what a pod has, that which says where the database is; the component's own settings are not ours.
_VARIABLES: Final = (
    "KAPSEL_DATABASE_URL",
    "KAPSEL_DATABASE_URL_FILE",
    "KAPSEL_DATABASE_DIRECT_URL",
    "KAPSEL_DATABASE_DIRECT_URL_FILE",
    "KAPSEL_DATABASE_SCHEMA",
)


@asynccontextmanager
async def connected(data_dir: Path | None, environ: Mapping[str, str]) -> AsyncIterator[Connection]:
    """Connect to the database of a data directory if one is named, else to that of the environment if it names one."""
    with _located(data_dir, environ) as (url, schema):
        try:
            connection = await asyncpg.connect(
                url,
                timeout=database.CONNECT_TIMEOUT,
                command_timeout=STATEMENT_SECONDS,
                server_settings=database.settings(schema=schema, role=None, component="log"),
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise CliError(f"the database cannot be reached: {error}", "Check that it runs, and its URL") from error
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def _located(data_dir: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    given = {name: environ[name] for name in _VARIABLES if name in environ}
    if data_dir is None and any(name != "KAPSEL_DATABASE_SCHEMA" for name in given):
        try:
            settings = load(DatabaseSettings, given)
        except SettingsError as error:
            raise CliError(str(error).rstrip("."), "docs/settings.md explains the variables") from error
        yield settings.session_url, settings.database_schema
        return
    from kapsel_cli.postgres import EmbeddedPostgres  # which an image does not have to bring

    path = _data_dir(data_dir)
    if _runs(path):
        yield EmbeddedPostgres(path).url, DEFAULT_SCHEMA
        return
    data, postgres = DataDir(path), EmbeddedPostgres(path)
    data.take()
    try:
        postgres.start()
        yield postgres.url, DEFAULT_SCHEMA
    finally:
        postgres.stop()
        data.give_back()


def _data_dir(data_dir: Path | None) -> Path:
    here = Path.cwd()
    places = [data_dir] if data_dir is not None else [folder / DATA_DIR for folder in (here, *here.parents)]
    for place in places:
        if (place / "postgres" / "PG_VERSION").is_file():
            return place
    what = f"{data_dir} is no data directory of `kapsel up`" if data_dir else f"there is no {DATA_DIR} here or above"
    raise CliError(what, "Name one with --data-dir, or the database with KAPSEL_DATABASE_URL")


def _runs(path: Path) -> bool:
    try:
        running = read_state(path)
    except (OSError, ValueError, TypeError) as error:
        raise DataInUseError(
            f"{path / 'up.json'} cannot be read: {error}", "Run this as the user that runs `kapsel up`"
        ) from error
    return running is not None and lives(running.pid)

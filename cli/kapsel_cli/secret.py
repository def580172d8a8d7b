"""`kapsel secret`: shows a key that kapsel made, so that it can be handed to a destination.

It reads the database and the sealing key themselves and not the console's API: whoever may read the data directory has
the secrets anyway, and nobody else gets them. Which key is meant is decided in `choose`, without IO.
"""

import argparse
import asyncio
import difflib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.client import DATA_DIR, find_data_dir
from kapsel_cli.errors import CliError, UnreachableError
from kapsel_cli.following import hint
from kapsel_store.rows import Configuration, KeyRow

MOST_NAMED: Final = 5

TEXT: Final = """\
Shows a key that kapsel made: `whsec_<base64>`, or of an Ed25519 one the public half, `whpk_<base64>`. It is what a
destination needs to check that a delivery comes from here. Standard output is that one line and nothing else.

KEY is a SigningKey with source Generate, an endpoint whose destinations name no key, or the origin of the log. What a
SigningKey with source Secret holds you wrote yourself, and it is not shown.

The data directory of the running `kapsel up` is read, not the console: who may read it may see the secrets. Each look
is written into the audit table.

examples:
  kapsel secret shop/github-orders              the key made for the destinations of this endpoint
  kapsel secret shop/outgoing --version 2       the next version of a SigningKey that is rotated, ahead of its time
  kapsel secret shop/generated/outgoing         the name as `kapsel get keys` shows it, if the short one is not clear
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "secret", summary="show a signing key that kapsel made", text=TEXT)
    parser.add_argument("key", metavar="KEY", help="namespace/name, or the name alone if it is the only one")
    parser.add_argument(
        "--version", type=_version, metavar="N", help="this version (default: the newest one that signs now)"
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="PATH", help=f"data directory of the `kapsel up` to read (default: {DATA_DIR})"
    )
    parser.add_argument("--database-url", metavar="URL", help="the Postgres that `kapsel up` was given, if it was")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one key."""
    from kapsel_resources import key_values  # slow to import, and of no use to `kapsel --help`

    row, others = asyncio.run(_reveal(arguments))
    if others:
        hint(f"This is version {row.version}. Live now or soon are also: {', '.join(map(str, others))} (--version N).")
    print(key_values.shared_text(row.secret) if row.public is None else key_values.public_text(row.public))
    return 0


async def _reveal(arguments: argparse.Namespace) -> tuple[KeyRow, list[int]]:
    """Return the version that is meant, once the audit table says so, and which others there are."""
    import asyncpg

    from kapsel_cli.data_dir import DataDir
    from kapsel_cli.postgres import EmbeddedPostgres
    from kapsel_cli.supervisor import SCHEMA
    from kapsel_store import audit, configuration, database
    from kapsel_store.errors import DatabaseURLError, SealingError
    from kapsel_store.sealing import SealingKeys

    place, running = find_data_dir(arguments.data_dir, "name its data directory with --data-dir")
    url = arguments.database_url or EmbeddedPostgres(place).url
    try:
        sealing = SealingKeys.from_file(DataDir(place).sealing_key)
        pool = database.connect(url, role=None, schema=SCHEMA, size=1, component="secret")
        async with pool, pool.acquire() as connection:
            loaded = await configuration.load(connection, sealing)
            now = await database.now(connection)
            row = choose(loaded, arguments.key, arguments.version, now)
            async with connection.transaction():
                await audit.write(
                    connection,
                    actor=f"kapsel secret (uid {os.getuid()})",
                    action="key.reveal",
                    subject=f"key {row.namespace}/{row.name} version {row.version}",
                    detail={"id": str(row.id), "public": row.public is not None},
                )
            # A crash here leaves an entry of a look that showed nothing, and never a look without its entry.
    except SealingError as error:
        raise CliError(f"the keys cannot be opened: {error}", "Run this as the user that runs `kapsel up`") from error
    except Exception as error:
        if not isinstance(error, asyncpg.PostgresError | DatabaseURLError) and not database.is_away(error):
            raise
        raise UnreachableError(
            f"the database of `kapsel up` (pid {running.pid}) cannot be read: {str(error) or type(error).__name__}",
            "Look whether it runs; if it was given a --database-url, give that here too",
        ) from error
    return row, _others(loaded.keys, row, now)


def choose(loaded: Configuration, named: str, version: int | None, now: datetime) -> KeyRow:
    """Return the version of a key that is meant; raise CliError if none is, or several may be."""
    from kapsel_resources.keys import is_generated
    from kapsel_resources.rotation import is_live

    found = _matching(loaded.keys, named)
    made = sorted(where for where in found if is_generated(where[1]))
    if len(made) > 1:
        raise CliError(f"{named} may be {len(made)} keys", f"Say which: {_listed('/'.join(where) for where in made)}")
    if not made:
        raise _not_made(found, named) if found else _unknown(loaded, named)
    rows = [row for row in loaded.keys if (row.namespace, row.name) == made[0]]
    meant = [row for row in rows if row.version == version or (version is None and is_live(row, now))]
    if not meant:
        which = "that is live" if version is None else str(version)
        versions = _listed(str(row.version) for row in rows)
        raise CliError(f"{'/'.join(made[0])} has no version {which}", f"Choose with --version: {versions}")
    return max(meant, key=lambda row: row.version)


def _matching(keys: Iterable[KeyRow], named: str) -> set[tuple[str, str]]:
    """Return the keys that a text may mean; the whole name, as `kapsel get keys` shows it, means one alone."""
    names = {(row.namespace, row.name) for row in keys}
    exact = {where for where in names if "/".join(where) == named}
    return exact or {where for where in names if named in (_short(*where), _bare(where[1]))}


def _bare(name: str) -> str:
    return name.partition("/")[2]


def _short(namespace: str, name: str) -> str:
    return f"{namespace}/{_bare(name)}"


def _others(keys: Iterable[KeyRow], shown: KeyRow, now: datetime) -> list[int]:
    """Return the other versions that a destination should know of, for one signature in several is enough."""
    same = [row for row in keys if (row.namespace, row.name) == (shown.namespace, shown.name) and row.id != shown.id]
    return sorted(row.version for row in same if row.not_after is None or now < row.not_after)


def _not_made(found: Iterable[tuple[str, str]], named: str) -> CliError:
    names = _listed(sorted("/".join(where) for where in found))
    return CliError(f"kapsel did not make {named} ({names})", "Its value is in the Secret that your manifests name")


def _unknown(loaded: Configuration, named: str) -> CliError:
    from kapsel_resources.keys import is_generated

    for endpoint in loaded.endpoints:
        if named in (f"{endpoint.namespace}/{endpoint.name}", endpoint.name):
            keys = {row.key_name for row in loaded.destinations if row.endpoint_id == endpoint.id and row.key_name}
            names = _listed(sorted(f"{endpoint.namespace}/{key}" for key in keys)) or "none, for there are none"
            return CliError(f"the endpoint {named} has no key of its own", f"Its destinations sign with: {names}")
    known = sorted({_short(row.namespace, row.name) for row in loaded.keys if is_generated(row.name)})
    near = difflib.get_close_matches(named, known, n=MOST_NAMED)
    if near:
        return CliError(f"there is no key {named}", f"The nearest names are: {_listed(near)}")
    return CliError(f"there is no key {named}", "List them with `kapsel get keys`")


def _listed(names: Iterable[str]) -> str:
    everything: Sequence[str] = list(names)
    more = f" and {len(everything) - MOST_NAMED} more" if len(everything) > MOST_NAMED else ""
    return ", ".join(everything[:MOST_NAMED]) + more


def _version(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not the number of a version")
    return int(text)

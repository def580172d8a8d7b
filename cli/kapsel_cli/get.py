"""`kapsel get`: what is stored, as a table, JSON or YAML, once or as it changes."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.client import Client, add_server, connect, endpoint_name, path
from kapsel_cli.errors import RefusedError, UnreachableError

DEFAULT_LIMIT: Final = 50
MOST: Final = 100_000
INTERVAL: Final = 1.0  # seconds between two looks of --watch

TEXT: Final = """\
Shows what a running kapsel has stored.

  kapsel get endpoints      where webhooks come in, where they go, and what waits
  kapsel get events         webhooks that were accepted
  kapsel get deliveries     one for each event and destination: this is what has a state
  kapsel get attempts       single tries; the id of one is what `kapsel proof` takes
  kapsel get log            the Merkle log that every attempt goes into
  kapsel get processes      what runs, and with which generation of the configuration

A name or an id behind it shows that one alone; with -o json or -o yaml, whole.

examples:
  kapsel get deliveries --state exhausted --since 24h      what was given up since yesterday
  kapsel get attempts --delivery ID                        every try of one delivery
  kapsel get events ID -o yaml                             one event with headers and body
  kapsel get endpoints -o wide --watch                     keep looking
  kapsel get deliveries --state exhausted -o json | jq -r '.items[].id' | xargs kapsel retry

exit codes: 0 done, 1 it could not be done, 2 the arguments are wrong
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of thing to get."""

    name: str
    one: str  # singular, also its alias
    summary: str
    filters: tuple[str, ...] = ()
    takes: str | None = None  # what identifies a single one


KINDS: Final = (
    Kind(name="endpoints", one="endpoint", summary="where webhooks come in, where they go, what waits", takes="NAME"),
    Kind(
        name="events", one="event", summary="webhooks that were accepted", filters=("endpoint", "since"), takes="ID"
    ),
    Kind(
        name="deliveries",
        one="delivery",
        summary="events on their way to destinations",
        filters=("state", "endpoint", "event", "since"),
        takes="ID",
    ),
    Kind(
        name="attempts",
        one="attempt",
        summary="single tries, each provable",
        filters=("endpoint", "event", "delivery", "since"),
        takes="ID",
    ),
    Kind(name="log", one="logs", summary="the Merkle log and its newest head"),
    Kind(name="processes", one="process", summary="what runs, and with which generation"),
)

_FILTERS: Final[Mapping[str, tuple[str, str]]] = {
    "state": ("STATE", "pending, sending, delivered, exhausted or cancelled; several with commas"),
    "endpoint": ("NAME", "of this endpoint: namespace/name, or the name alone if it is the only one"),
    "event": ("ID", "of this event"),
    "delivery": ("ID", "of this delivery"),
    "since": ("TIME", "not older than 15m, 1h30m, ... or since 2026-01-31T12:00:00Z"),
}
_HINTS: Final[Mapping[str, str]] = {
    "endpoints": "No endpoint is declared yet. Write a WebhookEndpoint into the directory that `kapsel up` watches.",
    "events": "No webhook has been accepted yet. Send one: kapsel send NAMESPACE/NAME FILE --as github --secret-file KEY",
    "deliveries": "Nothing has been delivered yet. Send a webhook: kapsel send NAMESPACE/NAME FILE --as github ...",
    "attempts": "Nothing has been tried yet. Look at what waits: kapsel get deliveries --state pending",
    "log": "There is no log yet. The attestor opens it when it first runs: kapsel get processes",
    "processes": "No process is alive. Start kapsel: kapsel up DIR",
}


def register(subparsers: Subparsers) -> None:
    """Declare the command, and under it one for each kind."""
    kinds = add_command(subparsers, "get", summary="show endpoints, events, deliveries, attempts, the log", text=TEXT)
    below = kinds.add_subparsers(title="kinds", metavar="KIND", required=True)
    for kind in KINDS:
        parser = below.add_parser(
            kind.name, aliases=[kind.one], help=kind.summary, description=kind.summary, allow_abbrev=False
        )
        if kind.takes is not None:
            parser.add_argument("which", nargs="?", metavar=kind.takes, help="show this one alone")
        for name in kind.filters:
            metavar, says = _FILTERS[name]
            parser.add_argument(f"--{name}", metavar=metavar, help=says)
        parser.add_argument(
            "--limit",
            type=_limit,
            default=DEFAULT_LIMIT,
            metavar="N",
            help="at most so many, the newest (default: %(default)s)",
        )
        parser.add_argument(
            "-o", "--output", choices=("table", "wide", "json", "yaml"), default="table", help="form (default: table)"
        )
        parser.add_argument("-w", "--watch", action="store_true", help="keep looking, and print what changes")
        add_server(parser)
        parser.set_defaults(run=run, kind=kind)


def run(arguments: argparse.Namespace) -> int:
    """Show the items once, or until Ctrl-C."""
    from kapsel_cli.printers import printer  # yaml and rich are of no use to `kapsel --help`

    kind: Kind = arguments.kind
    client = connect(arguments)
    out = printer(kind.name, arguments.output)
    if kind.takes == "ID" and arguments.which is not None and not arguments.watch:
        out.single(client.get(path(kind.name, arguments.which)))
        return 0
    query = _query(client, kind, arguments)
    found = _items(client, kind, arguments, query)
    if not found and not arguments.watch:
        return _none(kind, arguments, query)
    if kind.name == "endpoints" and arguments.which is not None and not arguments.watch:
        out.single(found[0])
        return 0
    out.several(found)
    if not found:
        out.hint(_HINTS[kind.name])
    return _watch(client, kind, arguments, query, out, found) if arguments.watch else 0


def _query(client: Client, kind: Kind, arguments: argparse.Namespace) -> dict[str, str | None]:
    query = {name: getattr(arguments, name) for name in kind.filters}
    if query.get("endpoint"):
        query["endpoint"] = endpoint_name(client, query["endpoint"])
    if kind.name == "endpoints" and arguments.which is not None:
        namespace, _, name = endpoint_name(client, arguments.which).partition("/")
        query |= {"namespace": namespace, "name": name}
    return query


def _items(
    client: Client, kind: Kind, arguments: argparse.Namespace, query: Mapping[str, str | None]
) -> Sequence[Mapping[str, Any]]:
    if kind.name == "log":
        answer = client.get(path("attestation", "log"))
        waiting = {name: value for name, value in answer.items() if name != "items"}
        return [{**item, **waiting} for item in answer["items"]]
    if kind.name == "processes":
        return list(client.get(path("processes"))["items"])
    if kind.takes == "ID" and arguments.which is not None:
        return [client.get(path(kind.name, arguments.which))]
    return list(client.items(path(kind.name), arguments.limit, **query))


def _none(kind: Kind, arguments: argparse.Namespace, query: Mapping[str, str | None]) -> int:
    from kapsel_cli.printers import printer

    out = printer(kind.name, arguments.output)
    if kind.name == "endpoints" and arguments.which is not None:
        raise RefusedError(
            f"there is no endpoint {arguments.which}", "List them with `kapsel get endpoints`", code="unknown_endpoint"
        )
    out.nothing()
    given = [f"--{name} {value}" for name, value in query.items() if value is not None]
    if given:
        out.hint(f"No {kind.name} for {' '.join(given)}. Leave one out to see more.")
    else:
        out.hint(_HINTS[kind.name])
    return 0


def _watch(
    client: Client,
    kind: Kind,
    arguments: argparse.Namespace,
    query: Mapping[str, str | None],
    out: Any,
    found: Sequence[Mapping[str, Any]],
) -> int:
    """Print what is new or has changed, until Ctrl-C, which is how a watch ends well."""
    seen = {_identity(item): item for item in found}
    away = False
    while True:
        try:
            time.sleep(INTERVAL)
            latest = _items(client, kind, arguments, query)
            away = False
        except KeyboardInterrupt:
            return 0
        except (UnreachableError, RefusedError) as error:
            if isinstance(error, RefusedError) and not error.temporary:
                raise
            if not away:
                out.hint(f"kapsel: {error.problem}; still watching.")
            away = True
            continue
        changed = [item for item in reversed(latest) if seen.get(_identity(item)) != item]
        seen = {_identity(item): item for item in latest}
        out.more(changed)


def _identity(item: Mapping[str, Any]) -> str:
    return str(item.get("id") or item.get("origin") or item.get("instance"))


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to {MOST}")
    return int(text)

"""`kapsel try`: what filters, transforms and order keys make of one event, without sending anything.

The endpoint comes from manifests, before anybody applies them, or from a running console; the event from a file, or
from what a console has stored. `trial` says what becomes of it.
"""

import argparse
import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from kapsel_cli.arguments import Reach, Subparsers, add_command
from kapsel_cli.client import OVER_HTTP, connect, endpoint_name, path
from kapsel_cli.errors import CliError, ManifestsError
from kapsel_cli.send import read_body
from kapsel_store.rows import SECRET_HEADERS, DestinationRow, Ordering, RelayRow, Transform

if TYPE_CHECKING:
    from kapsel_cli.manifests import Manifests
    from kapsel_cli.trial import Declared, Mistake, Trial
    from kapsel_expressions.event import Event
    from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint

NO_ID: Final = "00000000-0000-7000-8000-000000000000"  # of an event that nobody has sent
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")

TEXT: Final = """\
Says what would become of an event at each destination of an endpoint: which get it, why the others do not, its order
key, and the body and headers that a transform makes. Nothing is sent or stored. What is wrong is shown where it is.

examples:
  kapsel try shop/orders push.json --manifests k8s/ --type push     before anything is applied
  kapsel try shop/orders 0199a1b2-... --manifests k8s/              an event that came, by manifests that are to come
  kapsel try shop/orders push.json --header 'X-Region: eu' --destination billing
                                                                    by what runs now
  kapsel try shop/orders push.json --manifests k8s/ -o json | jq -r '.destinations[] | select(.result == "sent").name'

exit codes: 0 every expression gave something, 1 one failed or is invalid, 2 the arguments are wrong
"""

_SAYS: Final[Mapping[str, str]] = {
    "sent": "gets it",
    "filtered": "does not get it: its filter gives false",
    "failed": "does not get it while this fails: the try is recorded as `unsent`, and made again",
    "invalid": "is not taken: the endpoint would be Stalled with ",
}


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the command."""
    parser = add_command(
        subparsers, "try", summary="what expressions make of an event, without sending it", text=reach.worded(TEXT)
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="namespace/name, or the name alone if it is the only one")
    parser.add_argument(
        "event", metavar="EVENT", help="a file with the body, - for standard input, or the id of an event of a console"
    )
    parser.add_argument(
        "--manifests", type=Path, metavar="DIR", help="the endpoint as it is declared there (default: as it runs)"
    )
    parser.add_argument(
        "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'", help="a header; may be repeated"
    )
    parser.add_argument("--type", metavar="TYPE", help="the type, for providers that name it in a header")
    parser.add_argument(
        "--destination", action="append", default=[], metavar="NAME", help="only this destination; may be repeated"
    )
    parser.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text", help="form (default: text)")
    reach.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what becomes of one event."""
    from kapsel_cli import output, trial  # slow to import, and of no use to --help

    declared = _from_console(arguments) if arguments.manifests is None else _from_manifests(arguments)
    names = [row.name for row in declared.destinations]
    if unknown := [name for name in arguments.destination if name not in names]:
        where = f"{declared.namespace}/{declared.name}"
        raise CliError(f"{where} has no destination {unknown[0]}", f"It has: {', '.join(names) or 'none'}")
    event, size = _event(arguments, declared, output.now())
    tried = trial.tries(declared, event, arguments.destination)
    match arguments.output:
        case "json":
            output.print_json(trial.document(event, tried))
        case "yaml":
            output.print_yaml(trial.document(event, tried))
        case _:
            for line in lines(declared, event, size, tried):
                print(output.printable(line))
    return int(any(one.mistakes for one in tried))


def _header(text: str) -> tuple[str, str]:
    found = _HEADER.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no header such as 'X-Region: eu'")
    return found[1], found[2]


def _from_manifests(arguments: argparse.Namespace) -> "Declared":
    from kapsel_cli import manifests
    from kapsel_cli.trial import Declared, expressions
    from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint

    directory: Path = arguments.manifests
    if not directory.is_dir():
        raise CliError(f"{directory} is not a directory", "Name the one with the manifests of the endpoint")
    read = manifests.read(directory)
    asked: str = arguments.endpoint
    endpoints = [one for one in read.resources if isinstance(one, WebhookEndpoint)]
    found = [one for one in endpoints if asked in (one.metadata.name, f"{one.metadata.namespace}/{one.metadata.name}")]
    if not found and read.problems:
        raise ManifestsError(read.problems)
    if len(found) != 1:
        names = ", ".join(f"{one.metadata.namespace}/{one.metadata.name}" for one in found or endpoints) or "none"
        count = f"{len(found)} endpoints" if found else "no endpoint"
        raise CliError(f"{directory} declares {count} called {asked}", f"It has: {names}")
    (resource,) = found
    rows = tuple(
        DestinationRow(
            id=UUID(int=0),
            endpoint_id=UUID(int=0),
            name=one.name,
            url=one.url,
            suspend=one.suspend,
            filter=one.filter,
            transform=None if one.transform is None else one.transform.row(),
            ordering=None if one.ordering is None else one.ordering.row(),
        )
        for one in resource.spec.destinations
    )
    place = read.places[resource.identity]
    return Declared(
        namespace=resource.metadata.namespace,
        name=resource.metadata.name,
        scheme=resource.spec.verification.scheme,
        suspend=resource.spec.suspend,
        max_body_bytes=resource.spec.max_body_bytes,
        destinations=rows,
        places={
            (row.name, where): place.at(("spec", "destinations", index, *_parts(where)))
            for index, row in enumerate(rows)
            for where in ("url", *(where for where, _, _ in expressions(row)))
        },
        egress=_egress(read, resource),
    )


def _egress(read: "Manifests", endpoint: "WebhookEndpoint") -> RelayRow:
    """Return what the Relay of an endpoint lets it call, as the plan has it; if nobody can tell which: anything."""
    from kapsel_resources.inventory import Inventory
    from kapsel_resources.kinds.relay import Relay
    from kapsel_resources.relays import IMPLICIT, Chosen, carries, choose

    inventory = Inventory(read.resources, read.broken, read.complete)
    relays = [(one.metadata.namespace, one.metadata.name) for one in inventory.all(Relay)]
    for wanted in (*relays, *(() if relays else (None,))):
        chosen = choose(inventory, wanted, IMPLICIT)
        if not isinstance(chosen, Chosen):
            continue
        if carries(chosen, inventory, endpoint.identity, endpoint.spec.relay_ref) is True:
            return chosen.row()
    return RelayRow(allow_http=True, allowed_cidrs=("0.0.0.0/0", "::/0"))


def _parts(where: str) -> tuple[str | int, ...]:
    """Return the path that a field's name stands for: transform.headers[0].value."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", where))


def _from_console(arguments: argparse.Namespace) -> "Declared":
    from kapsel_cli.trial import Declared

    client = connect(arguments)
    namespace, _, name = endpoint_name(client, arguments.endpoint).partition("/")
    listed: list[dict[str, Any]] = list(client.items("/api/v1/endpoints", 1, namespace=namespace, name=name))
    if not listed:
        raise CliError(
            f"there is no endpoint {namespace}/{name}", client.worded("List them with `kapsel get endpoints`")
        )
    (found,) = listed
    return Declared(
        namespace=namespace,
        name=name,
        scheme=found["verification"],
        suspend=found["suspend"],
        max_body_bytes=found["max_body_bytes"],
        destinations=tuple(_row(one) for one in found["destinations"]),
    )


def _row(listed: Mapping[str, Any]) -> DestinationRow:
    if "transform" not in listed:
        raise CliError(
            "the console is of a version that does not tell expressions", "Name the manifests: --manifests DIR"
        )
    transform, ordering = listed["transform"], listed["ordering"]
    return DestinationRow(
        id=UUID(listed["id"]),
        endpoint_id=UUID(int=0),
        name=listed["name"],
        url=listed["url"],
        suspend=listed["suspend"],
        filter=listed["filter"],
        transform=None
        if transform is None
        else Transform(
            body=transform["body"],
            headers=tuple((header["name"], header["value"]) for header in transform["headers"]),
            content_type=transform["content_type"],
        ),
        ordering=None if ordering is None else Ordering(key=ordering["key"], on_exhausted=ordering["on_exhausted"]),
    )


def _is_id(event: str) -> bool:
    """Whether an event of a console is meant and no file: an id, and no file of that name is here."""
    return _ID.fullmatch(event) is not None and not Path(event).exists()


def _event(arguments: argparse.Namespace, declared: "Declared", now: datetime) -> tuple["Event", int]:
    """Return the event as expressions see it, and how many bytes its body has."""
    from kapsel_deliverer import shapes
    from kapsel_expressions.event import type_header

    headers = list(arguments.header)
    if arguments.type is not None:
        header = type_header(declared.scheme)
        if header is None:
            raise CliError(
                f"{declared.scheme} names the type of an event in no header",
                "Leave --type out: the body says it, if any",
            )
        headers.append((header, arguments.type))
    event_id, received_at = NO_ID, now
    if not _is_id(arguments.event):
        body = read_body(arguments.event)
        if all(name.lower() != "content-type" for name, _ in headers):
            headers.append(("Content-Type", "application/json"))
    else:
        stored = connect(arguments).get(path("events", arguments.event))
        if stored["body_base64"] is None:
            raise CliError(f"the body of event {arguments.event} is gone", "Name another event, or a file")
        event_id, received_at = stored["id"], datetime.fromisoformat(stored["received_at"])
        body = base64.b64decode(stored["body_base64"])
        given = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in stored["headers"] if name.lower() not in given]
    kept = [(name, value) for name, value in headers if name.lower() not in SECRET_HEADERS]
    event = shapes.seen(
        event_id=event_id,
        scheme=declared.scheme,
        namespace=declared.namespace,
        endpoint=declared.name,
        received_at=received_at,
        headers=json.dumps(kept),
        body=body,
    )
    return event, len(body)


def lines(declared: "Declared", event: "Event", size: int, tried: Sequence["Trial"]) -> Iterator[str]:
    """Yield what becomes of an event as lines of text."""
    from kapsel_expressions.event import ABSENT

    kind = "without a type" if event.type is None else f"of type {event.type}"
    yield f"an event {kind}, {size} bytes {'that are no JSON' if event.body is ABSENT else 'of JSON'}"
    if declared.suspend:
        yield "the endpoint is suspended: it would not be taken now, but answered with 503"
    if size > declared.max_body_bytes:
        yield f"the endpoint takes at most {declared.max_body_bytes} bytes: it would be refused with 413"
    for one in tried:
        yield ""
        stalls = one.mistakes[0].stalls if one.result == "invalid" else ""
        yield f"{one.destination.name} {_SAYS[one.result]}{stalls}"
        yield from (f"  {line}" for line in _of(one))


def _of(trial: "Trial") -> Iterator[str]:
    if trial.result == "sent" and trial.destination.suspend:
        yield "later: the manifest suspends the destination"
    for mistake in trial.mistakes:
        yield from _told(mistake)
    if trial.key is not None:
        yield f"order key  {trial.key}"
    if trial.result != "sent":
        return
    for name, value in () if trial.made is None else trial.made.headers.items():
        yield f"header     {name}: {value}"
    if trial.made is None or trial.made.body is None:
        yield "body       as it came"
    else:
        yield f"body       {trial.made.body.content_type}, {len(trial.made.body.content)} bytes:"
        yield from trial.made.body.content.decode().split("\n")


def _told(mistake: "Mistake") -> Iterator[str]:
    where = mistake.where if mistake.declared_at is None else f"{mistake.declared_at}: {mistake.where}"
    yield f"{where}: {mistake.said}"
    if mistake.where == "ordering.key" and mistake.reason != "invalid":
        yield "it shares one key with all events of the destination for which that fails"
    yield from (f"  {line}" for line in mistake.excerpt)

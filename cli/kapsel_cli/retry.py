"""What a person does about deliveries and destinations: `kapsel retry`, `cancel`, `resume` and `unblock`."""

import argparse
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from kapsel_cli.arguments import Reach, Subparsers, add_command
from kapsel_cli.client import OVER_HTTP, PAGE, Client, connect, endpoint_name, path
from kapsel_cli.errors import CliError, RefusedError
from kapsel_cli.following import hint

RETRY: Final = """\
Delivers again what has ended: makes a new delivery of the same event to the same destination, with a full set of tries.
The old one stays as it is, for final states never change; the new one says which it replays.

examples:
  kapsel retry 0199a1b2-...                                one delivery
  kapsel get deliveries --state exhausted --since 24h -o json | jq -r '.items[].id' | xargs kapsel retry
                                                           everything that was given up since yesterday, also what was
                                                           delivered again since, which a replay leaves out
"""
CANCEL: Final = """\
Ends deliveries that wait, so that they are not tried (again). One that is being sent at this moment cannot be stopped.

examples:
  kapsel cancel 0199a1b2-...
  kapsel get deliveries --state pending --endpoint shop/orders -o json | jq -r '.items[].id' | xargs kapsel cancel
"""
RESUME: Final = """\
Lets a destination be tried again at once: closes its circuit, and undoes that it was stopped because it answered 410
Gone. A destination that its manifest suspends stays so until the manifest says otherwise.

examples:
  kapsel get endpoints -o wide            which destinations are in trouble, and why
  kapsel resume shop/orders/billing       namespace/endpoint/destination
  kapsel resume orders/billing            the same, if only one endpoint is called orders
"""


UNBLOCK: Final = """\
Lets order keys of a destination go on that are blocked because a delivery of theirs was given up: what blocks them is
left out, and the next delivery of each key goes. To have it delivered after all, retry it instead: it then goes first.

examples:
  kapsel get blocked                                          which keys wait, and for which delivery
  kapsel unblock shop/orders/billing --delivery 0199a1b2-...  the key that this delivery blocks
  kapsel unblock shop/orders/billing                          all blocked keys of the destination
"""


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the four commands."""
    retry = add_command(subparsers, "retry", summary="deliver again what has ended", text=reach.worded(RETRY))
    cancel = add_command(subparsers, "cancel", summary="end deliveries that wait", text=reach.worded(CANCEL))
    resume = add_command(
        subparsers, "resume", summary="let a stopped destination be tried again", text=reach.worded(RESUME)
    )
    unblock = add_command(subparsers, "unblock", summary="let blocked order keys go on", text=reach.worded(UNBLOCK))
    for parser, run in ((retry, _retry), (cancel, _cancel)):
        parser.add_argument("ids", metavar="ID", nargs="+", help="id of a delivery")
        reach.add_options(parser)
        parser.set_defaults(run=run)
    for parser, run in ((resume, _resume), (unblock, _unblock)):
        parser.add_argument(
            "destination", metavar="DESTINATION", help="namespace/endpoint/destination, or the id of one"
        )
        reach.add_options(parser)
        parser.set_defaults(run=run)
    unblock.add_argument("--delivery", metavar="ID", help="only the key that this delivery blocks")


def _retry(arguments: argparse.Namespace) -> int:
    def retry(client: Client, delivery_id: str) -> str:
        made = client.post(path("deliveries", delivery_id, "retry"))
        return f"delivery {made['id']} replays {delivery_id}, to {made['endpoint']}/{made['destination']}"

    return _each(arguments, retry)


def _cancel(arguments: argparse.Namespace) -> int:
    def cancel(client: Client, delivery_id: str) -> str:
        client.post(path("deliveries", delivery_id, "cancel"))
        return f"delivery {delivery_id} is cancelled"

    return _each(arguments, cancel)


def _each(arguments: argparse.Namespace, change: Callable[[Client, str], str]) -> int:
    """Change each delivery and say so; one that cannot be changed keeps none of the others from it."""
    client = connect(arguments)
    refused = 0
    for delivery_id in arguments.ids:
        try:
            print(change(client, delivery_id), flush=True)
        except RefusedError as error:
            if error.code not in _OF_ONE:
                raise
            refused += 1
            hint(f"kapsel: {error}")
    if refused and len(arguments.ids) > 1:
        hint(f"{refused} of {len(arguments.ids)} were refused, for the reasons above; the others are done.")
    return 1 if refused else 0


# What is wrong with one delivery alone, and says nothing of the next.
_OF_ONE: Final = frozenset(
    {
        "parameter_invalid",
        "unknown_delivery",
        "delivery_not_final",
        "delivery_not_pending",
        "event_gone",
        "destination_removed",
    }
)


def _resume(arguments: argparse.Namespace) -> int:
    client = connect(arguments)
    resumed = client.post(path("destinations", _destination_id(client, arguments.destination), "resume"))
    print(f"{resumed['destination']} is tried again")
    return 0


def _unblock(arguments: argparse.Namespace) -> int:
    client = connect(arguments)
    asked = path("destinations", _destination_id(client, arguments.destination), "unblock")
    opened = client.post(asked if arguments.delivery is None else f"{asked}?delivery={quote(arguments.delivery)}")
    keys = "key goes" if opened["unblocked"] == 1 else "keys go"
    print(f"{opened['unblocked']} order {keys} on at {opened['destination']}")
    return 0


_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _destination_id(client: Client, named: str) -> str:
    """Return the id of a destination by its name; an id is one already."""
    if "/" not in named:
        if not _UUID.fullmatch(named):
            raise CliError(
                f"{named} is neither endpoint/destination nor the id of a destination",
                client.worded("List them with `kapsel get endpoints -o wide`"),
            )
        return named
    endpoint, _, name = named.rpartition("/")
    namespace, _, endpoint = endpoint_name(client, endpoint).partition("/")
    found: list[dict[str, Any]] = [
        one
        for listed in client.items("/api/v1/endpoints", PAGE, namespace=namespace, name=endpoint)
        for one in listed["destinations"]
    ]
    for one in found:
        if one["name"] == name:
            return str(one["id"])
    choices = ", ".join(one["name"] for one in found) or "none"
    raise CliError(f"{namespace}/{endpoint} has no destination {name}", f"It has: {choices}")

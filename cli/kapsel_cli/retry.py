"""`kapsel retry`, `kapsel cancel`, `kapsel resume`: what a person does about deliveries and destinations."""

import argparse
from typing import Any, Final

from kapsel_cli.arguments import Reach, Subparsers, add_command
from kapsel_cli.client import OVER_HTTP, PAGE, Client, connect, endpoint_name, path
from kapsel_cli.errors import CliError

RETRY: Final = """\
Delivers again what has ended: makes a new delivery of the same event to the same destination, with a full set of tries.
The old one stays as it is, for final states never change; the new one says which it replays.

examples:
  kapsel retry 0199a1b2-...                                one delivery
  kapsel get deliveries --state exhausted --since 24h -o json | jq -r '.items[].id' | xargs kapsel retry
                                                           everything that was given up since yesterday
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


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the three commands."""
    retry = add_command(subparsers, "retry", summary="deliver again what has ended", text=reach.worded(RETRY))
    cancel = add_command(subparsers, "cancel", summary="end deliveries that wait", text=reach.worded(CANCEL))
    resume = add_command(
        subparsers, "resume", summary="let a stopped destination be tried again", text=reach.worded(RESUME)
    )
    for parser, run in ((retry, _retry), (cancel, _cancel)):
        parser.add_argument("ids", metavar="ID", nargs="+", help="id of a delivery")
        reach.add_options(parser)
        parser.set_defaults(run=run)
    resume.add_argument("destination", metavar="DESTINATION", help="namespace/endpoint/destination, or the id of one")
    reach.add_options(resume)
    resume.set_defaults(run=_resume)


def _retry(arguments: argparse.Namespace) -> int:
    client = connect(arguments)
    for delivery_id in arguments.ids:
        made = client.post(path("deliveries", delivery_id, "retry"))
        print(f"delivery {made['id']} replays {delivery_id}, to {made['endpoint']}/{made['destination']}", flush=True)
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    client = connect(arguments)
    for delivery_id in arguments.ids:
        client.post(path("deliveries", delivery_id, "cancel"))
        print(f"delivery {delivery_id} is cancelled", flush=True)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    client = connect(arguments)
    named: str = arguments.destination
    destination_id = _destination_id(client, named) if "/" in named else named
    resumed = client.post(path("destinations", destination_id, "resume"))
    print(f"{resumed['destination']} is tried again")
    return 0


def _destination_id(client: Client, named: str) -> str:
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

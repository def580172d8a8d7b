"""`kapsel explain`: why a delivery is where it is, and when it goes next; in the kubectl plugin, too.

The console says it; here it is laid out for a person.
"""

import argparse
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from kapsel_cli.arguments import Reach, Subparsers, add_command
from kapsel_cli.client import OVER_HTTP, connect, path

TEXT: Final = """\
Says in plain words why a delivery is where it is, and when it goes next: what came of its tries, what keeps it, which
limits hold and who declared them, how far its proof is, and what to do.

examples:
  kapsel get undelivered                                   find the id
  kapsel explain 0199a1b2-...
  kapsel explain 0199a1b2-... -o json | jq -r .next_tries[0].earliest
"""
WIDTH: Final = 110
LABEL: Final = 12

Document = Mapping[str, Any]


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the command."""
    parser = add_command(
        subparsers, "explain", summary="why a delivery is where it is, and when it goes next", text=reach.worded(TEXT)
    )
    parser.add_argument(
        "delivery", metavar="DELIVERY_ID", help=reach.worded("id of a delivery: `kapsel get deliveries`")
    )
    parser.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text", help="form (default: text)")
    reach.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation of one delivery."""
    from kapsel_cli import output  # yaml and rich are of no use to --help

    client = connect(arguments)
    said = client.get(path("deliveries", arguments.delivery, "explanation"))
    match arguments.output:
        case "json":
            output.print_json(said)
        case "yaml":
            output.print_yaml(said)
        case _:
            for line in lines(said, output.now()):
                print(output.printable(client.worded(line)))
    return 0


def lines(said: Document, now: datetime) -> Iterator[str]:
    """Yield an explanation as lines of text."""
    delivery = said["delivery"]
    yield f"delivery {delivery['id']} of event {delivery['event_id']}"
    yield f"to {delivery['endpoint']}/{delivery['destination']}: {delivery['state']}"
    yield ""
    yield from textwrap.wrap(said["summary"], WIDTH)
    yield ""
    if said["fault"] != "none":
        yield from _said("Fault", _FAULTS[said["fault"]])
    for hold in said["held_by"]:
        until = "" if hold["until"] is None else f", until {_when(hold['until'], now)}"
        yield from _said("Held", f"{hold['text']}{until}")
    for coming in said["next_tries"]:
        yield from _said("Next", f"try {coming['number']} {_between(coming, now)}")
    if delivery["finished_at"] is None:
        yield from _said("Ends", f"{_when(said['expires_at'], now)} at the latest")
    for tried in said["last_tries"]:
        when = _when(tried["started_at"], now)
        detail = f": {tried['detail']}" if tried.get("detail") else ""  # consoles of before have none
        yield from _said(f"Try {tried['number']}", f"{when}: {tried['reason']}, {tried['text']}{detail}")
    yield from _said("Proof", said["proof"])
    yield from _said("Replays", said["ancestry"])
    for number, advice in enumerate(said["advice"]):
        yield from _said("To do" if number == 0 else "", advice)
    yield ""
    width = max((len(one["name"]) for one in said["policy"]), default=0)
    sources = max((len(one["source"]) for one in said["policy"]), default=0)
    yield "What holds for its destination, and who says so:"
    for one in said["policy"]:
        yield f"  {one['name']:<{width}}  {one['source']:<{sources}}  {one['value']}"


_FAULTS: Final[Mapping[str, str]] = {
    "destination": "the destination's: whoever runs it must mend it",
    "configuration": "the configuration's: a manifest must be mended",
    "ours": "kapsel's, or that of whoever runs it",
}


def _said(label: str, text: str) -> Iterator[str]:
    first, *rest = textwrap.wrap(text, WIDTH - LABEL) or [""]
    yield f"{label:<{LABEL}}{first}".rstrip()
    for line in rest:
        yield " " * LABEL + line


def _between(coming: Document, now: datetime) -> str:
    earliest, latest = coming["earliest"], coming["latest"]
    if earliest == latest:
        return f"at {_when(earliest, now)}"
    return f"between {_when(earliest, now)} and {_when(latest, now)}"


def _when(moment: str, now: datetime) -> str:
    """Return a time of the API, and how far off it is."""
    from kapsel_cli.output import age

    off = age(moment, now)
    return f"{moment[:19].replace('T', ' ')}Z ({off if off.startswith('in ') else f'{off} ago'})"

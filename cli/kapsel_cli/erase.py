"""`kapsel erase`: has events forgotten, for good; in the kubectl plugin, too."""

import argparse
import sys
import time
from typing import Any, Final

from kapsel_cli.arguments import Reach, Subparsers, add_command, add_wait
from kapsel_cli.client import OVER_HTTP, Client, connect, path
from kapsel_cli.errors import CliError

NOT_YET: Final = 3  # exit code
PAUSE: Final = 1.0

TEXT: Final = """\
Forgets events for good: body, headers, salt and the hashes that a guess could be compared with, what destinations
answered, and what the log's leaves said of the attempts. Deliveries of it that wait end. What stays are ids, times,
outcomes and the hash of each leaf, so that every other proof goes on to hold; of what is erased nothing can be proven
any more. A try that is under way is not called back; what comes of it is forgotten as soon as it is recorded.

Not erased: what destinations have got, what backups and a replica that lags still hold, what proof files say that
somebody has taken along, and, until its window is over, the idempotency key: a hash, of the body where the endpoint
goes by content, without which an event that is sent again would be stored again. docs/privacy.md tells how to go about
those.

examples:
  kapsel erase 0199a1b2-...                               asks before it does it
  kapsel erase 0199a1b2-... --yes --wait                  does not, and waits until nothing is left
  kapsel get events --endpoint shop/orders --since 24h -o json | jq -r '.items[].id' | xargs kapsel erase --yes

exit codes: 0 nothing is left but what is named above, 1 it could not be done, 2 the arguments are wrong, 3 something is
still under way; it is forgotten without being asked again
"""


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "erase", summary="forget what events said, for good", text=reach.worded(TEXT))
    parser.add_argument("ids", metavar="EVENT_ID", nargs="+", help="id of an event, as destinations get it: webhook-id")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_wait(parser, "nothing is left")
    reach.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Have each event forgotten."""
    client = connect(arguments)
    if not arguments.yes and not _agreed(client, arguments.ids):
        print("kapsel: nothing was erased.", file=sys.stderr)
        return 1
    deadline = time.monotonic() + arguments.wait
    done = [_erase(client, event_id, deadline) for event_id in arguments.ids]
    return 0 if all(done) else NOT_YET


def _agreed(client: Client, ids: list[str]) -> bool:
    """Show what would be erased, and ask."""
    if not sys.stdin.isatty():
        raise CliError("nobody can be asked whether to erase", "Say --yes if you are sure: nothing brings it back")
    for event_id in ids:
        event = client.get(path("events", event_id))
        print(f"event {event_id} of {event['endpoint']}, received {event['received_at']}", file=sys.stderr)
    print("Forget what is above for good? Nothing brings it back. [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _erase(client: Client, event_id: str, deadline: float) -> bool:
    """Have one event forgotten, say how far that is, and return whether nothing of it is left."""
    cancelled = 0
    while True:
        found = client.post(path("events", event_id, "erase"))
        cancelled += found["cancelled_deliveries"]
        remaining = deadline - time.monotonic()
        if found["complete"] or remaining <= 0:
            print(_told(event_id, found, cancelled), flush=True)
            return bool(found["complete"])
        time.sleep(min(PAUSE, remaining))


def _told(event_id: str, found: dict[str, Any], cancelled: int) -> str:
    what = _counted(found["attempts"], "attempt") + (f", {_counted(cancelled, 'delivery')} ended" if cancelled else "")
    if found["complete"]:
        return f"event {event_id} is erased ({what})"
    waits = []
    if found["deliveries_under_way"]:
        waits.append(f"{_counted(found['deliveries_under_way'], 'delivery')} being sent")
    if found["attempts_without_leaf"]:
        waits.append(f"the hashes of {_counted(found['attempts_without_leaf'], 'attempt')} that wait for a leaf")
    return f"event {event_id} is erased ({what}) but for {' and '.join(waits)}, which follows by itself"


def _counted(number: int, what: str) -> str:
    plural = what.removesuffix("y") + "ies" if what.endswith("y") else what + "s"
    return f"{number} {what if number == 1 else plural}"

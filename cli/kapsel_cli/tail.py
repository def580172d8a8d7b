"""`kapsel tail`: attempts as they happen, one line each."""

import argparse
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from kapsel_cli.arguments import Reach, Subparsers, add_command
from kapsel_cli.client import OVER_HTTP, PAGE, Client, connect, endpoint_name, path
from kapsel_cli.following import follow, hint

INTERVAL: Final = 0.5  # seconds between two looks
MOST_AT_ONCE: Final = 1000  # attempts in one look; beyond, a person reads nothing anyway
REMEMBERED: Final = 20_000

TEXT: Final = """\
Shows every try as it happens: when, what came of it, from which endpoint to which destination, how long it took.

examples:
  kapsel tail                               everything
  kapsel tail --endpoint shop/orders        of one endpoint
  kapsel tail --last 0 -o json | jq .       from now on, as JSON lines with every member

It ends with Ctrl-C. While the console is away it waits. More than a thousand tries in one look (half a second) are not
all shown; it says so.
"""


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "tail", summary="follow attempts as they happen", text=reach.worded(TEXT))
    parser.add_argument("--endpoint", metavar="NAME", help="of this endpoint: namespace/name, or the name alone")
    last = [name for name in ("-n", "--last") if name not in reach.taken]
    parser.add_argument(*last, type=int, default=10, metavar="N", help="begin with the last N (default: %(default)s)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form (default: text)")
    reach.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Follow until Ctrl-C, which is how it ends well."""
    from kapsel_cli import output  # slow to import, and of no use to `kapsel --help`

    client = connect(arguments)
    endpoint = None if arguments.endpoint is None else endpoint_name(client, arguments.endpoint)
    show = output.print_json_line if arguments.output == "json" else _line
    follower = Follower(client, endpoint)
    beginning = follower.look()
    for attempt in beginning[len(beginning) - min(max(arguments.last, 0), len(beginning)) :]:
        show(attempt)
    try:
        for found in follow(follower.look, INTERVAL):
            if follower.missed:
                hint(f"kapsel: more than {MOST_AT_ONCE} attempts since the last line; the older ones are not shown.")
            for attempt in found:
                show(attempt)
    except KeyboardInterrupt:
        pass
    return 0


class Follower:
    """Finds the attempts that were not seen before.

    Attempts are not stored in the order of their ids, so a late one appears below those that were seen: each look goes
    back over a whole page, and what was seen is remembered by id.
    """

    def __init__(self, client: Client, endpoint: str | None) -> None:
        self._client = client
        self._endpoint = endpoint
        self._seen: set[str] = set()
        self._order: deque[str] = deque()
        self.missed = False  # whether the last look did not reach back to the one before

    def look(self) -> list[dict[str, Any]]:
        """Return what is new, oldest first."""
        first = not self._order
        new: list[dict[str, Any]] = []
        joined = False
        for number, attempt in enumerate(
            self._client.items(path("attempts"), MOST_AT_ONCE, endpoint=self._endpoint), 1
        ):
            if attempt["id"] in self._seen:
                joined = True
            else:
                new.append(attempt)
            if number % PAGE == 0 and (joined or first):
                break
        self.missed = not first and not joined and len(new) >= MOST_AT_ONCE
        for attempt in reversed(new):
            self._remember(attempt["id"])
        return new[::-1]

    def _remember(self, attempt_id: str) -> None:
        self._seen.add(attempt_id)
        self._order.append(attempt_id)
        if len(self._order) > REMEMBERED:
            self._seen.discard(self._order.popleft())


def _line(attempt: Mapping[str, Any]) -> None:
    from kapsel_cli import output

    print(output.printable(text(attempt)), flush=True)


def text(attempt: Mapping[str, Any]) -> str:
    """Return an attempt as one line."""
    mark = "✓" if attempt["outcome"] == "delivered" else "✗"
    clock = attempt["started_at"][11:23]
    way = f"{attempt['endpoint']} → {attempt['destination']}"
    came_of_it = attempt["response_status"] or attempt["reason"]
    return (
        f"{clock} {mark} {way}  {came_of_it}  try {attempt['number']}  {attempt['duration_ms']:.0f}ms  {attempt['id']}"
    )

"""`kapsel replay`: has the console deliver a selection of events again, waits for that, suspends it or cancels it."""

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.client import Client, add_server, connect, endpoint_name, path
from kapsel_cli.errors import RefusedError, UnreachableError
from kapsel_cli.following import hint
from kapsel_cli.replaying import DAY, UNFINISHED, add_follow, add_selection, manifest

# What may be done to one that was made before, and what that does.
CHANGES: Final = {
    "suspend": "make no more of this one for now",
    "resume": "let this one go on that was suspended",
    "cancel": "stop this one where it is",
}
INTERVAL: Final = 0.5  # seconds between two looks

TEXT: Final = """\
Delivers again what came in within a time and ended in a certain way. It is a job: deliverers carry it out, and it goes
on when this command is gone. Every delivery gets a new one; the old ones stay as they are. A Replay that stands in a
manifest is one by itself; this one is in none, and no manifest takes it away.

examples:
  kapsel replay orders --from 2h --dry-run --wait                  count what was given up in the last two hours
  kapsel replay shop/orders --from 2026-03-01T09:00:00Z --to 2026-03-01T11:30:00Z --wait
  kapsel replay orders --from 24h --state exhausted,cancelled --destination billing --rate 10
  kapsel replay orders --since 24h --reason status_5xx,response_timeout --destination billing
  kapsel replay orders --from 24h --filter 'event.body.amount > 100' --dry-run --wait
  kapsel replay orders --since 24h --state missing --destination warehouse        it was declared today
  kapsel replay --follow ID                                        wait for one that was made before
  kapsel replay --suspend ID                                       make no more of it until --resume ID
  kapsel replay --cancel ID                                        make no more of it

exit codes: 0 done, 1 it could not be done, 2 the arguments are wrong, 3 some of it failed, it was cancelled, or --wait
is over
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "replay", summary="deliver a selection of events again", text=TEXT)
    add_selection(parser)
    add_follow(parser, "ID")
    for verb, does in CHANGES.items():
        parser.add_argument(f"--{verb}", metavar="ID", help=f"make none, {does}")
    add_server(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Make a replay and say so, wait for one, or change one."""
    changes = [(verb, one) for verb in CHANGES if (one := getattr(arguments, verb)) is not None]
    if len(changes) + sum(one is not None for one in (arguments.endpoint, arguments.follow)) != 1:
        arguments.parser.error(
            "give the ENDPOINT to replay, or --follow ID to wait for one, or --suspend, --resume or --cancel ID"
        )
    if arguments.endpoint is not None and arguments.since is None:
        arguments.parser.error("--from is needed: from when on")
    client = connect(arguments)
    for verb, replay_id in changes:
        return _change(client, verb, replay_id)
    if arguments.follow is not None:
        return _follow(client, arguments.follow, arguments.wait or DAY)
    made = _make(client, arguments)
    if arguments.wait is None:
        hint(f"Follow it with: kapsel replay --follow {made['id']}")
        return 0
    return _follow(client, made["id"], arguments.wait)


def _change(client: Client, verb: str, replay_id: str) -> int:
    one = path("replays", replay_id)
    changed = client.delete(one) if verb == "cancel" else client.post(f"{one}/{verb}")
    said = {"cancel": "is cancelled", "suspend": "is suspended", "resume": "goes on"}[verb]
    print(f"replay {_name(changed)} {said}: {changed['message']}", flush=True)
    if verb == "cancel":
        # Without these the same words mean another selection, and what was delivered is delivered again.
        times = f"--from {changed['received_from']} --to {changed['received_to']}"
        hint(f"To have it go on, ask for the same again with: --name {changed['name']} {times}")
    return 0


def _make(client: Client, arguments: argparse.Namespace) -> Mapping[str, Any]:
    namespace, _, endpoint = endpoint_name(client, arguments.endpoint).partition("/")
    wanted = manifest(arguments, endpoint, namespace, datetime.now(UTC))
    made: Mapping[str, Any] = client.post(path("replays"), wanted)
    print(f"replay {made['id']} is asked for: {_name(made)}", flush=True)
    return made


def _follow(client: Client, replay_id: str, timeout: float) -> int:
    """Print each step of a replay until it ends."""
    deadline = time.monotonic() + timeout
    said = ""
    while True:
        try:
            found = client.get(path("replays", replay_id))
            text = f"{found['phase']}: {found['message']}"
        except (UnreachableError, RefusedError) as error:
            if (isinstance(error, RefusedError) and not error.temporary) or time.monotonic() >= deadline:
                raise
            found, text = None, f"{error.problem}; still looking"
        if text != said:
            print(text, flush=True)
            said = text
        if found is not None and found["phase"] in ("complete", "removed"):
            return 0 if found["phase"] == "complete" and not found["failed"] else UNFINISHED
        if time.monotonic() >= deadline:
            hint(f"It has not ended in {timeout:g} s; it goes on without this command.")
            return UNFINISHED
        time.sleep(INTERVAL)


def _name(replay: Mapping[str, Any]) -> str:
    return f"{replay['namespace']}/{replay['name']}"

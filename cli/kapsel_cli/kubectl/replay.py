"""`kubectl kapsel replay`: makes a Replay, or waits for one; the operator carries it out.

What the arguments mean is decided in `replaying`.
"""

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.errors import CliError, UnreachableError
from kapsel_cli.following import hint
from kapsel_cli.kubectl.options import PROGRAM, add_cluster, open_cluster
from kapsel_cli.kubectl.view import view
from kapsel_cli.replaying import DAY, UNFINISHED, add_follow, add_selection, manifest

if TYPE_CHECKING:
    from kapsel_cli.kubectl.cluster import Cluster

INTERVAL: Final = 1.0  # seconds between two looks

TEXT: Final = """\
Delivers again what came in within a time and ended in a certain way, by making a Replay, which is a job: the operator
carries it out, and it goes on when this command is gone. Every delivery gets a new one; the old ones stay as they are.

examples:
  kubectl kapsel replay orders -n shop --from 2h --dry-run --wait     count what was given up in the last two hours
  kubectl kapsel replay orders -n shop --from 2026-03-01T09:00:00Z --to 2026-03-01T11:30:00Z --wait
  kubectl kapsel replay orders -n shop --from 24h --state exhausted,cancelled --destination billing --rate 10
  kubectl kapsel replay orders -n shop --since 24h --reason status_5xx,response_timeout --destination billing
  kubectl kapsel replay orders -n shop --since 24h --state missing --destination warehouse     it was declared today
  kubectl kapsel replay --follow orders-20260301-113000 -n shop       wait for one that was made before

exit codes: 0 done, 1 it could not be done, 2 the arguments are wrong, 3 some of it failed, or --wait is over
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "replay", summary="deliver a selection of events again", text=TEXT)
    add_selection(parser)
    parser.add_argument("--ttl", type=int, metavar="SECONDS", help="delete the Replay so long after its end")
    add_follow(parser, "NAME")
    add_cluster(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Make a Replay and say so, or wait for one."""
    if (arguments.endpoint is None) == (arguments.follow is None):
        arguments.parser.error("give the ENDPOINT to replay, or --follow NAME to wait for a Replay")
    if arguments.endpoint is not None and arguments.since is None:
        arguments.parser.error("--from is needed: from when on")
    cluster = open_cluster(arguments)
    if arguments.follow is not None:
        return _follow(cluster, arguments.follow, arguments.wait or DAY)
    name = _create(cluster, arguments)
    if arguments.wait is None:
        hint(f"Follow it with: {PROGRAM} replay --follow {name} -n {cluster.namespace}")
        return 0
    return _follow(cluster, name, arguments.wait)


def progress(replay: Mapping[str, Any]) -> str:
    """Return how far a Replay is as one line."""
    status = replay.get("status") or {}
    if "matched" not in status:
        return "waits to be counted"
    if replay["spec"].get("dryRun"):
        return f"{status['matched']} deliveries are meant"
    failed = f", {status['failed']} failed" if status.get("failed") else ""
    return (
        f"{status['matched']} deliveries are meant, {status.get('enqueued', 0)} made anew, "
        f"{status.get('delivered', 0)} delivered{failed}"
    )


def _create(cluster: "Cluster", arguments: argparse.Namespace) -> str:
    from kapsel_cli.kubectl.cluster import resources

    endpoint: str = arguments.endpoint
    if cluster.find(resources("webhookendpoints", cluster.namespace, endpoint)) is None:
        raise CliError(
            f"there is no WebhookEndpoint {endpoint} in namespace {cluster.namespace}",
            "List them with `kubectl get webhookendpoints -A`",
        )
    wanted = manifest(arguments, endpoint, cluster.namespace, datetime.now(UTC), arguments.ttl)
    made = cluster.create(resources("replays", cluster.namespace), wanted)
    name = str(made["metadata"]["name"])
    print(f"replay.kapsel.dev/{name} created", flush=True)
    return name


def _follow(cluster: "Cluster", name: str, timeout: float) -> int:
    """Print each step of a Replay until it ends."""
    from kapsel_cli.kubectl.cluster import resources

    deadline = time.monotonic() + timeout
    said = ""
    while True:
        try:
            found = cluster.find(resources("replays", cluster.namespace, name))
        except UnreachableError as error:
            if time.monotonic() >= deadline:
                raise
            found, said = {}, _say(f"{error.problem}; still looking", said)
        if found is None:
            raise CliError(f"there is no Replay {name} (any more)", "List them with `kubectl get replays`")
        if found:
            seen = view("Replay", found)
            said = _say(progress(found), said)
            for condition, code in (("Failed", UNFINISHED), ("Stalled", UNFINISHED), ("Complete", 0)):
                if seen.is_true(condition):
                    one = seen.conditions[condition]
                    print(f"{condition}: {one.reason}" + (f": {one.message}" if one.message else ""), flush=True)
                    return code
        if time.monotonic() >= deadline:
            hint(f"It has not ended in {timeout:g} s; it goes on without this command.")
            return UNFINISHED
        time.sleep(INTERVAL)


def _say(text: str, before: str) -> str:
    if text != before:
        print(text, flush=True)
    return text

"""`kubectl kapsel replay`: makes a Replay, or waits for one; the operator carries it out.

What the arguments mean is decided without IO: `selection` and `progress` are tables.
"""

import argparse
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kapsel_cli.arguments import Subparsers, add_command, seconds
from kapsel_cli.errors import CliError, UnreachableError
from kapsel_cli.following import hint
from kapsel_cli.kubectl.options import PROGRAM, add_cluster, open_cluster
from kapsel_cli.kubectl.view import moment, view

if TYPE_CHECKING:
    from kapsel_cli.kubectl.cluster import Cluster

INTERVAL: Final = 1.0  # seconds between two looks
STATES: Final = ("delivered", "exhausted", "cancelled", "missing")
_REASON: Final = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
FAULTS: Final = ("destination", "configuration", "ours")
UNFINISHED: Final = 3  # exit code: some of it has failed, or it has not ended in time

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


class Moment(NamedTuple):
    """A point in time, or so long before now."""

    at: datetime | None = None
    ago: timedelta = timedelta()

    def seen(self, now: datetime) -> datetime:
        """Return the point in time."""
        return self.at or now - self.ago


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "replay", summary="deliver a selection of events again", text=TEXT)
    parser.add_argument("endpoint", nargs="?", metavar="ENDPOINT", help="name of a WebhookEndpoint")
    parser.add_argument(
        "--from", "--since", dest="since", type=_moment, metavar="TIME", help="from then on: 2h ago, or RFC 3339"
    )
    parser.add_argument("--to", "--until", dest="until", type=_moment, metavar="TIME", help="up to then (default: now)")
    parser.add_argument(
        "--state", type=_states, default=["exhausted"], metavar="STATE",
        help="how the deliveries ended: delivered, exhausted, cancelled; several with commas (default: exhausted); or "
        "missing: there is none, for the destination was declared later",
    )  # fmt: skip
    parser.add_argument(
        "--reason", type=_reasons, metavar="REASON", help="for these reasons: status_503, status_5xx, dns; with commas"
    )
    parser.add_argument(
        "--fault",
        type=_faults,
        metavar="FAULT",
        help="destination, configuration or ours: whose fault it was; with commas",
    )
    parser.add_argument("--include-pending", action="store_true", help="also what is being delivered again already")
    parser.add_argument(
        "--destination", action="append", metavar="NAME", help="to this destination; may be repeated (default: all)"
    )
    parser.add_argument("--rate", type=int, metavar="N", help="deliveries made anew in a second (default: 50)")
    parser.add_argument("--dry-run", action="store_true", help="only count what is meant")
    parser.add_argument("--ttl", type=int, metavar="SECONDS", help="delete the Replay so long after its end")
    parser.add_argument("--name", metavar="NAME", help="name of the Replay (default: endpoint and time)")
    parser.add_argument("--follow", metavar="NAME", help="make none, wait for this one")
    parser.add_argument(
        "--wait", nargs="?", type=seconds, const=86_400.0, metavar="SECONDS",
        help="wait until it has ended, at most so long (alone: a day)",
    )  # fmt: skip
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
        return _follow(cluster, arguments.follow, arguments.wait or 86_400.0)
    name = _create(cluster, arguments)
    if arguments.wait is None:
        hint(f"Follow it with: {PROGRAM} replay --follow {name} -n {cluster.namespace}")
        return 0
    return _follow(cluster, name, arguments.wait)


def manifest(arguments: argparse.Namespace, namespace: str, now: datetime) -> dict[str, Any]:
    """Return the Replay that the arguments ask for."""
    spec: dict[str, Any] = {
        "endpointRef": {"name": arguments.endpoint},
        "selection": {
            "from": _text(arguments.since.seen(now)),
            "to": _text(now if arguments.until is None else arguments.until.seen(now)),
            "states": arguments.state,
        },
    }
    narrower = {
        "reasons": arguments.reason,
        "faults": arguments.fault,
        "includePending": arguments.include_pending or None,
    }
    spec["selection"] |= {name: value for name, value in narrower.items() if value is not None}
    optional = {
        "destinations": arguments.destination,
        "rate": arguments.rate,
        "dryRun": arguments.dry_run or None,
        "ttlSecondsAfterFinished": arguments.ttl,
    }
    spec |= {name: value for name, value in optional.items() if value is not None}
    name = arguments.name or f"{arguments.endpoint[:200]}-{now:%Y%m%d-%H%M%S}"
    return {
        "apiVersion": "kapsel.dev/v1alpha1",
        "kind": "Replay",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


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
    wanted = manifest(arguments, cluster.namespace, datetime.now(UTC))
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


def _moment(text: str) -> Moment:
    from kapsel_resources import durations  # pydantic comes with it, and --help has no use for that

    try:
        return Moment(ago=durations.parse(text))
    except ValueError:
        pass
    at = moment(text)
    if at is None or at.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a duration such as 2h nor a time as 2026-03-01T09:00:00Z"
        )
    return Moment(at=at)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _states(text: str) -> list[str]:
    return _among(text, STATES)


def _faults(text: str) -> list[str]:
    return _among(text, FAULTS)


def _among(text: str, known: tuple[str, ...]) -> list[str]:
    given = text.split(",")
    if wrong := [one for one in given if one not in known]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
    return given


def _reasons(text: str) -> list[str]:
    given = text.split(",")
    if wrong := [one for one in given if not _REASON.fullmatch(one)]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is no reason code such as status_503, status_5xx or dns")
    return given

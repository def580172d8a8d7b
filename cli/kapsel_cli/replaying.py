"""What selects the deliveries of a Replay on a command line, and the manifest that it makes.

`kapsel replay` sends it to the console, `kubectl kapsel replay` to the API server: the options and what they mean are
the same, and decided here without IO.
"""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from kapsel_cli.arguments import seconds
from kapsel_store.reasons import instead

STATES: Final = ("delivered", "exhausted", "cancelled", "missing")
FAULTS: Final = ("destination", "configuration", "ours")
UNFINISHED: Final = 3  # exit code: some of it has failed, or it has not ended in time
DAY: Final = 86_400.0  # seconds


class Moment(NamedTuple):
    """A point in time, or so long before now."""

    at: datetime | None = None
    ago: timedelta = timedelta()

    def seen(self, now: datetime) -> datetime:
        """Return the point in time."""
        return self.at or now - self.ago


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Declare what is meant, how fast it goes, and whether it is only counted."""
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
    parser.add_argument("--filter", metavar="CEL", help="of events for which this is true: 'event.body.amount > 100'")
    parser.add_argument("--include-pending", action="store_true", help="also what is being delivered again already")
    parser.add_argument(
        "--destination", action="append", metavar="NAME", help="to this destination; may be repeated (default: all)"
    )
    parser.add_argument("--rate", type=int, metavar="N", help="deliveries made anew in a second (default: 50)")
    parser.add_argument("--dry-run", action="store_true", help="only count what is meant")
    parser.add_argument("--name", metavar="NAME", help="name of the Replay (default: endpoint and time)")


def add_follow(parser: argparse.ArgumentParser, metavar: str) -> None:
    """Declare how long a command waits for a Replay, and that it may wait for one that there is already."""
    parser.add_argument("--follow", metavar=metavar, help="make none, wait for this one")
    parser.add_argument(
        "--wait", nargs="?", type=seconds, const=DAY, metavar="SECONDS",
        help="wait until it has ended, at most so long (alone: a day)",
    )  # fmt: skip


def manifest(
    arguments: argparse.Namespace, endpoint: str, namespace: str, now: datetime, ttl: int | None = None
) -> dict[str, Any]:
    """Return the Replay that the arguments ask for."""
    spec: dict[str, Any] = {
        "endpointRef": {"name": endpoint},
        "selection": {
            "from": _text(arguments.since.seen(now)),
            "to": _text(now if arguments.until is None else arguments.until.seen(now)),
            "states": arguments.state,
        },
    }
    narrower = {
        "reasons": arguments.reason,
        "faults": arguments.fault,
        "filter": arguments.filter,
        "includePending": arguments.include_pending or None,
    }
    spec["selection"] |= {name: value for name, value in narrower.items() if value is not None}
    optional = {
        "destinations": arguments.destination,
        "rate": arguments.rate,
        "dryRun": arguments.dry_run or None,
        "ttlSecondsAfterFinished": ttl,
    }
    spec |= {name: value for name, value in optional.items() if value is not None}
    name = arguments.name or f"{endpoint[:200]}-{now:%Y%m%d-%H%M%S}"
    return {
        "apiVersion": "kapsel.dev/v1alpha1",
        "kind": "Replay",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def _moment(text: str) -> Moment:
    from kapsel_resources import durations  # pydantic comes with it, and --help has no use for that

    try:
        return Moment(ago=durations.parse(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
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
    for one in given:
        if (allowed := instead(one)) is not None:
            raise argparse.ArgumentTypeError(f"{one!r} is no reason; allowed: {allowed}")
    return given

"""`kapsel get`: what is stored, as a table, JSON or YAML, once or as it changes."""

import argparse
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kapsel_cli.arguments import Reach, Subparsers, add_command, add_debug
from kapsel_cli.client import OVER_HTTP, Client, connect, endpoint_name, path
from kapsel_cli.errors import CliError
from kapsel_cli.following import follow, hint

if TYPE_CHECKING:
    from kapsel_cli.printers import Printer

Item: TypeAlias = Mapping[str, Any]
Fetch: TypeAlias = Callable[[int | None], Iterable[Item]]  # at most so many; None: all

DEFAULT_LIMIT: Final = 50  # of a table and a watch; JSON and YAML are for programs, which cannot see that some lack
MOST: Final = 100_000
INTERVAL: Final = 1.0  # seconds between two looks of --watch

TEXT: Final = """\
Shows what a running kapsel has stored.

  kapsel get endpoints      where webhooks come in, where they go, and what waits
  kapsel get events         webhooks that were accepted
  kapsel get deliveries     one for each event and destination: this is what has a state
  kapsel get undelivered    what was not delivered, to whom, why, and whose fault that is
  kapsel get attempts       single tries; the id of one is what `kapsel proof` takes
  kapsel get log            the Merkle log that every attempt goes into
  kapsel get keys           signing keys: their versions, who uses them, public halves
  kapsel get replays        selections that are delivered again, and how far that is
  kapsel get blocked        order keys that wait for a person
  kapsel get processes      what runs, and with which generation of the configuration

A name or an id behind it shows that one alone; with -o json or -o yaml, whole.

examples:
  kapsel get deliveries --state exhausted --since 24h      what was given up since yesterday
  kapsel get attempts --delivery ID                        every try of one delivery
  kapsel get events ID -o yaml                             one event with headers and body
  kapsel get endpoints -o wide --watch                     keep looking
  kapsel get deliveries --state exhausted --since 24h -o json | jq -r '.items[].id' | xargs kapsel retry

exit codes: 0 done, 1 it could not be done, 2 the arguments are wrong
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of thing to get."""

    name: str
    one: str  # singular, also its alias
    summary: str
    text: str  # what its columns mean, and examples
    filters: tuple[str, ...] = ()
    takes: str | None = None  # what identifies a single one
    each: tuple[str, ...] = ()  # filters of single ones alone, where a summary is shown otherwise


KINDS: Final = (
    Kind(
        name="endpoints",
        one="endpoint",
        summary="where webhooks come in, where they go, what waits",
        takes="NAME",
        text="""\
Endpoints by name. READY: every receiver and deliverer has loaded what is declared. DELIVERING: how many
destinations are sent to, so 1/2 means that one is suspended, or cut off because it fails (-o wide says which
and why). PENDING: deliveries that wait, and how long the OLDEST has.

examples:
  kapsel get endpoints -o wide
  kapsel get endpoint shop/orders -o yaml
""",
    ),
    Kind(
        name="events",
        one="event",
        summary="webhooks that were accepted",
        filters=("endpoint", "since"),
        takes="ID",
        text="""\
Accepted webhooks, newest first; each is stored for good as it came, byte for byte.

examples:
  kapsel get events --endpoint shop/orders --since 15m
  kapsel get event ID -o json | jq -r .body_base64 | base64 -d      the body as it came
""",
    ),
    Kind(
        name="deliveries",
        one="delivery",
        summary="events on their way to destinations",
        filters=("state", "endpoint", "event", "since"),
        takes="ID",
        text="""\
One delivery for each event and destination, newest first. STATE: pending (waits, for its first or next try at
DUE), sending, or ended as delivered, exhausted (given up, REASON says why) or cancelled. With -o wide, ACK says
whether the destination has signed what it got: acknowledged, missing, invalid or no_key.

examples:
  kapsel get deliveries --state pending,sending --watch
  kapsel get deliveries --state exhausted --since 24h
  kapsel get deliveries --event ID -o wide
""",
    ),
    Kind(
        name="undelivered",
        one="undelivered",
        summary="what was not delivered, to whom, why, and whose fault that is",
        filters=("endpoint", "late"),
        each=("destination", "fault", "reason", "since"),
        text="""\
What was not delivered and is not younger than a minute, by destination and reason: what waits (pending, sending) and
what was given up (exhausted) and was not delivered again since. FAULT: destination (whoever runs it must mend it),
configuration (a manifest must be mended) or ours (kapsel, or whoever runs it). COUNT 1000+ means that there are more.
With --each, or a filter that needs it, the deliveries themselves, newest first. `kapsel explain ID` says more of one.

examples:
  kapsel get undelivered                                   what is wrong, the first thing to look at
  kapsel get undelivered --fault ours                      what kapsel itself owes
  kapsel get undelivered --each --destination shop/orders/billing --reason status_503
""",
    ),
    Kind(
        name="attempts",
        one="attempt",
        summary="single tries, each provable",
        filters=("endpoint", "event", "delivery", "since"),
        takes="ID",
        text="""\
Single tries, newest first. STATUS is what the destination answered, REASON why it counts as it does, LEAF the
place in the log: from then on `kapsel proof ID` can prove it, as soon as a head over it is published. With -o
wide, ACK says whether the destination has signed what it got: acknowledged, missing, invalid or no_key (its keys
could not be had); nothing, if its manifest declares no acknowledgement or it did not take the delivery.

examples:
  kapsel get attempts --delivery ID
  kapsel get attempt ID -o yaml                                     with the response that was kept
""",
    ),
    Kind(
        name="log",
        one="logs",
        summary="the Merkle log and its newest head",
        text="""\
The log that every attempt goes into. LEAVES: how many it holds; PUBLISHED: over how many the newest signed
head is, and how old that HEAD is; WITNESSES: how many of those who are asked have cosigned it; WAITING: attempts
without a leaf. STATE: Active, Closed (another log continues it) or Frozen: it must not be signed any more, REASON
says why, and docs/fork-recovery.md goes on.

examples:
  kapsel get log -o wide
""",
    ),
    Kind(
        name="keys",
        one="key",
        summary="signing keys, their versions and users",
        text="""\
Every version of every key, never its secret. Behind the namespace, NAME says where it comes from: generated/K was
made by kapsel for the SigningKey K, endpoint/E for the destinations of endpoint E that name no key, log/ORIGIN for
the log; literal/K, standard/K and ed25519/K are read from K's Secret, basic/S and bearer/S from Secret S; external/K
is where K says, in a file, an HSM, Vault or a KMS, and never here. LIVE: it signs or verifies now. SINCE and UNTIL:
when that began or begins, and ends. `kapsel secret NAME` shows the secret of one that kapsel made.

examples:
  kapsel get keys -o wide                                           with public halves
  kapsel get keys -o json | jq -r '.items[] | select(.public_key) | .public_key'
""",
    ),
    Kind(
        name="replays",
        one="replay",
        summary="selections that are delivered again",
        takes="ID",
        text="""\
Replays by name. PHASE: waiting, counting (MATCHED grows), enqueuing (new deliveries are made, at the rate that is
declared), delivering (all are made, and some have not ended), complete, suspended, or removed: with its manifest, or
because somebody cancelled it. FAILED: new deliveries that were given up or cancelled.

examples:
  kapsel get replays --watch
  kapsel get replays -o wide                                        with what was skipped, and why
""",
    ),
    Kind(
        name="blocked",
        one="blocked-key",
        summary="order keys that wait for a person",
        text="""\
Order keys that are blocked, because the first delivery of theirs was given up. ID is that delivery, REASON says why it
was given up, WAITING how many of its key wait behind it. Deliver it after all with `kapsel retry ID`, or let the others
go on without it with `kapsel unblock DESTINATION --delivery ID`.

examples:
  kapsel get blocked -o wide
  kapsel get blocked -o json | jq -r '.items[].id' | xargs kapsel retry
""",
    ),
    Kind(
        name="processes",
        one="process",
        summary="what runs, and with which generation",
        text="""\
Processes that were alive within the last ten seconds, where their metrics are, and which GENERATION of the
configuration each has loaded.

examples:
  kapsel get processes
""",
    ),
)

_FILTERS: Final[Mapping[str, tuple[str, str]]] = {
    "state": ("STATE", "pending, sending, delivered, exhausted or cancelled; several with commas"),
    "endpoint": ("NAME", "of this endpoint: namespace/name, or the name alone if it is the only one"),
    "event": ("ID", "of this event"),
    "delivery": ("ID", "of this delivery"),
    "destination": ("NAME", "to this destination: namespace/endpoint/destination"),
    "fault": ("FAULT", "destination, configuration or ours; several with commas"),
    "reason": ("REASON", "for this reason, such as dns, status_503 or status_5xx; several with commas"),
    "late": ("TIME", "not younger than that, if it still waits (default: 1m)"),
    "since": ("TIME", "not older than 15m, 1h30m, ... or since 2026-01-31T12:00:00Z"),
}
_HINTS: Final[Mapping[str, str]] = {
    "endpoints": "No endpoint is declared yet. Write a WebhookEndpoint, for `kapsel up DIR` or for a cluster.",
    "events": "No webhook has been accepted yet. Send one: kapsel send NAMESPACE/NAME FILE --as github ...",
    "deliveries": "Nothing has been delivered yet. Send a webhook: kapsel send NAMESPACE/NAME FILE --as github ...",
    "undelivered": "Everything was delivered, or is younger than a minute.",
    "attempts": "Nothing has been tried yet. Look at what waits: kapsel get deliveries --state pending",
    "log": "There is no log yet. The attestor opens it when it first runs: kapsel get processes",
    "keys": "Nothing needs a key yet. Declare an endpoint with a destination, and kapsel makes one for it.",
    "replays": "Nothing is delivered again. Ask for it with kapsel replay ENDPOINT --from TIME, or write a Replay.",
    "blocked": "No order key is blocked.",
    "processes": "No process is alive. Start kapsel: kapsel up DIR",
}


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the command, and under it one for each kind."""
    text = reach.worded(TEXT)
    kinds = add_command(
        subparsers, "get", summary="show endpoints, events, deliveries, attempts, the log, keys", text=text
    )
    below = kinds.add_subparsers(title="kinds", metavar="KIND", required=True)
    for kind in KINDS:
        register_kind(below, kind, reach)


def register_kind(subparsers: Subparsers, kind: Kind, reach: Reach) -> None:
    """Declare the command that shows one kind."""
    parser = subparsers.add_parser(
        kind.name,
        aliases=[] if kind.one in reach.taken or kind.one == kind.name else [kind.one],
        help=kind.summary,
        description=reach.worded(kind.text),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_debug(parser)
    if kind.takes is not None:
        parser.add_argument("which", nargs="?", metavar=kind.takes, help="show this one alone")
    for name in (*kind.filters, *kind.each):
        metavar, says = _FILTERS[name]
        parser.add_argument(f"--{name}", metavar=metavar, help=says)
    if kind.each:
        parser.add_argument("--each", action="store_true", help="show each by itself; the last four filters do so, too")
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help=f"at most so many, the newest (default: {DEFAULT_LIMIT}; all with -o json and -o yaml)",
    )
    parser.add_argument(
        "-o", "--output", choices=("table", "wide", "json", "yaml"), default="table", help="form (default: table)"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="keep looking, and print what changes")
    reach.add_options(parser)
    parser.set_defaults(run=run, kind=kind)


def run(arguments: argparse.Namespace) -> int:
    """Show the items once, or until Ctrl-C."""
    from kapsel_cli.printers import printer  # yaml and rich are of no use to `kapsel --help`

    kind: Kind = arguments.kind
    filters = (*kind.filters, *kind.each)
    given = {name: getattr(arguments, name) for name in filters if getattr(arguments, name) is not None}
    out = printer(_shown(kind, arguments, given), arguments.output)
    client = connect(arguments)
    fetch, nothing = _fetch(client, arguments, given), client.worded(_nothing(kind, given))
    if arguments.watch:
        return _watch(fetch, arguments.limit or DEFAULT_LIMIT, out, nothing)
    if kind.takes is not None and arguments.which is not None:
        (item,) = fetch(1)
        out.single(item)
    elif arguments.output in ("json", "yaml"):
        _print_all(fetch(arguments.limit), out, nothing)
    else:
        _print_table(fetch, arguments.limit or DEFAULT_LIMIT, out, nothing)
    return 0


def _print_all(items: Iterable[Item], out: "Printer", nothing: str) -> None:
    rest = iter(items)
    first = list(itertools.islice(rest, 1))
    out.several(itertools.chain(first, rest))
    if not first:
        hint(nothing)


def _print_table(fetch: Fetch, limit: int, out: "Printer", nothing: str) -> None:
    found = list(fetch(limit + 1))
    out.several(found[:limit])
    if len(found) > limit:
        hint(f"There are more than these {limit}. Show more with --limit N, or all with -o json.")
    if not found:
        hint(nothing)


def _shown(kind: Kind, arguments: argparse.Namespace, given: Mapping[str, str]) -> str:
    """Return what is shown of a kind: a summary where there is one, unless single ones are asked for."""
    summed = bool(kind.each) and not arguments.each and not any(name in given for name in kind.each)
    return f"{kind.name}/summary" if summed else kind.name


def _nothing(kind: Kind, given: Mapping[str, str]) -> str:
    """Return what to say when there is nothing to show."""
    if not given:
        return _HINTS[kind.name]
    filters = " ".join(f"--{name} {value}" for name, value in given.items())
    return f"No {kind.name} for {filters}. Leave one out to see more."


def _fetch(client: Client, arguments: argparse.Namespace, given: Mapping[str, str]) -> Fetch:
    """Return what fetches the items that were asked for, as often as it is called."""
    kind: Kind = arguments.kind
    which: str | None = arguments.which if kind.takes is not None else None
    if kind.name == "log":
        return lambda limit: _logs(client.get(path("attestation", "log")))[:limit]
    if kind.name == "processes":
        return lambda limit: client.get(path("processes"))["items"][:limit]
    if kind.takes == "ID" and which is not None:
        return lambda _: [client.get(path(kind.name, which))]
    if which is not None:
        named = endpoint_name(client, which)
        return lambda _: _endpoint(client, named)
    query = dict(given)
    if "endpoint" in query:
        query["endpoint"] = endpoint_name(client, query["endpoint"])
    place = path(*_shown(kind, arguments, given).split("/"))
    return lambda limit: itertools.islice(client.items(place, limit, **query), limit)


def _logs(answer: Any) -> list[dict[str, Any]]:
    waiting = {name: value for name, value in answer.items() if name != "items"}
    return [{**item, **waiting} for item in answer["items"]]


def _endpoint(client: Client, named: str) -> list[dict[str, Any]]:
    namespace, _, name = named.partition("/")
    found = list(client.items(path("endpoints"), 1, namespace=namespace, name=name))
    if not found:
        raise CliError(f"there is no endpoint {named}", client.worded("List them with `kapsel get endpoints`"))
    return found


def _watch(fetch: Fetch, limit: int, out: "Printer", nothing: str) -> int:
    """Print what is there, then what is new or has changed, until Ctrl-C, which is how a watch ends well."""

    def look() -> Sequence[Item]:
        return list(fetch(limit))

    found = look()
    out.more(found[::-1])
    if not found:
        hint(nothing)
    seen = {_identity(item): item for item in found}
    try:
        for latest in follow(look, INTERVAL):
            out.more([item for item in reversed(latest) if seen.get(_identity(item)) != item])
            seen = {_identity(item): item for item in latest}
    except KeyboardInterrupt:
        pass
    return 0


def _identity(item: Mapping[str, Any]) -> str:
    if "destination_id" in item and "id" not in item:
        return f"{item['destination_id']} {item['state']} {item['reason']}"
    return str(item.get("id") or item.get("origin") or item.get("instance"))


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to {MOST}")
    return int(text)

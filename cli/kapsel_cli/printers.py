"""How `kapsel get` shows each kind: which columns a table has, and the other forms."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from kapsel_cli import output
from kapsel_cli.output import Column, Item, Table, age, now


class Printer(Protocol):
    """One form of output."""

    def several(self, items: Iterable[Item]) -> None:
        """Print a list."""

    def single(self, item: Item) -> None:
        """Print one item whole."""

    def more(self, items: Sequence[Item]) -> None:
        """Print what a watch has found."""


class _Tables:
    def __init__(self, kind: str, *, wide: bool) -> None:
        self._table = Table(columns=[column for column in COLUMNS[kind] if wide or not column.wide])

    def several(self, items: Iterable[Item]) -> None:
        self._table.print(items, now())

    def single(self, item: Item) -> None:
        self._table.print([item], now())

    def more(self, items: Sequence[Item]) -> None:
        self._table.print(items, now())


class _Json:
    def several(self, items: Iterable[Item]) -> None:
        output.print_json_items(items)

    def single(self, item: Item) -> None:
        output.print_json(item)

    def more(self, items: Sequence[Item]) -> None:
        for item in items:
            output.print_json_line(item)


class _Yaml:
    def several(self, items: Iterable[Item]) -> None:
        output.print_yaml_items(items)

    def single(self, item: Item) -> None:
        output.print_yaml(item)

    def more(self, items: Sequence[Item]) -> None:
        for item in items:
            output.print_yaml(item, begins=True)


def printer(kind: str, form: str) -> Printer:
    """Return the printer of a kind in a form."""
    match form:
        case "json":
            return _Json()
        case "yaml":
            return _Yaml()
    return _Tables(kind, wide=form == "wide")


def _plain(title: str, member: str, *, wide: bool = False) -> Column:
    return Column(title=title, cell=lambda item, _: _text(item[member]), wide=wide)


def _ago(title: str, member: str, *, wide: bool = False) -> Column:
    return Column(title=title, cell=lambda item, moment: age(item[member], moment), wide=wide)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _counted(title: str, member: str, more: str) -> Column:
    """A number that was counted up to a bound."""
    return Column(title=title, cell=lambda item, _: f"{item[member]}{'+' if item[more] else ''}")


def _delivering(item: Item, _: datetime) -> str:
    """How many destinations are sent to: neither suspended nor cut off by their circuit."""
    open_ones = [one for one in item["destinations"] if not one["suspend"] and one["circuit"]["state"] == "closed"]
    return f"{len(open_ones)}/{len(item['destinations'])}"


def _size(item: Item, _: datetime) -> str:
    over = item["size"] is None and item["body_hash"] is not None
    return "over" if over else output.size(item["size"])  # its retention is, and the hash is left


def _destinations(item: Item, _: datetime) -> str:
    return ", ".join(one["name"] + _trouble(one) for one in item["destinations"]) or "-"


def _trouble(destination: Item) -> str:
    circuit = destination["circuit"]
    if destination["suspend"]:
        return " (suspended)"
    if circuit["state"] == "closed":
        return ""
    return f" ({circuit['disabled_reason'] or circuit['state']})"


def _reason(item: Item, _: datetime) -> str:
    return "Suspended" if item["suspend"] else item["reason"]


def _milliseconds(item: Item, _: datetime) -> str:
    return f"{item['duration_ms']:.0f}ms"


def _head(item: Item, member: str) -> str:
    return "-" if item["head"] is None else str(item["head"][member])


def _witnesses(item: Item, _: datetime) -> str:
    """How many of those who are declared have cosigned the newest head."""
    if item["witnessing"] is None:
        return "-"
    asked = item["witnessing"]["witnesses"]
    return f"{sum(one['cosigned_at'] is not None for one in asked)}/{len(asked)}"


_NAME: Final = Column(title="NAME", cell=lambda item, _: f"{item['namespace']}/{item['name']}")
_WHERE: Final = (_plain("ID", "id"), _plain("ENDPOINT", "endpoint"), _plain("DESTINATION", "destination"))
_ORIGIN: Final = (
    _plain("EVENT", "event_id", wide=True),
    _ago("EXPIRES", "expires_at", wide=True),
    _plain("REPLAY OF", "replay_of", wide=True),
)
COLUMNS: Final[Mapping[str, Sequence[Column]]] = {
    "endpoints": (
        _NAME,
        _plain("READY", "ready"),
        Column(title="REASON", cell=_reason),
        Column(title="DELIVERING", cell=_delivering),
        _counted("PENDING", "pending", "pending_more"),
        _ago("OLDEST", "oldest_pending_at"),
        _plain("VERIFICATION", "verification"),
        Column(title="DESTINATIONS", cell=_destinations, wide=True),
        Column(title="INGEST", cell=lambda item, _: " ".join(item["ingest_paths"]) or "-", wide=True),
        _plain("GENERATION", "generation", wide=True),
        _plain("ID", "id", wide=True),
    ),
    "events": (
        _plain("ID", "id"),
        _plain("ENDPOINT", "endpoint"),
        _plain("TYPE", "content_type"),
        Column(title="SIZE", cell=_size),
        _ago("AGE", "received_at"),
        _plain("CORRELATION", "correlation_id", wide=True),
        _plain("SHA-256", "body_hash", wide=True),
    ),
    "deliveries": (
        *_WHERE,
        _plain("STATE", "state"),
        _plain("ATTEMPTS", "attempts"),
        _plain("REASON", "last_reason"),
        _ago("DUE", "due_at"),
        _ago("AGE", "created_at"),
        _plain("ACK", "acknowledgement", wide=True),
        *_ORIGIN,
    ),
    "undelivered/summary": (
        _plain("DESTINATION", "destination"),
        _plain("FAULT", "fault"),
        _plain("REASON", "reason"),
        _plain("STATE", "state"),
        _counted("COUNT", "count", "more"),
        _ago("OLDEST", "oldest_at"),
        _plain("MEANING", "text"),
        _plain("REMOVED", "removed", wide=True),
        _plain("ID", "destination_id", wide=True),
    ),
    "undelivered": (
        *_WHERE,
        _plain("FAULT", "fault"),
        _plain("REASON", "reason"),
        _plain("STATE", "state"),
        _plain("ATTEMPTS", "attempts"),
        _ago("DUE", "due_at"),
        _ago("AGE", "created_at"),
        *_ORIGIN,
    ),
    "attempts": (
        *_WHERE,
        _plain("TRY", "number"),
        _plain("OUTCOME", "outcome"),
        _plain("STATUS", "response_status"),
        _plain("REASON", "reason"),
        Column(title="TOOK", cell=_milliseconds),
        _plain("LEAF", "leaf_index"),
        _ago("AGE", "started_at"),
        _plain("ACK", "acknowledgement", wide=True),
        _plain("DELIVERY", "delivery_id", wide=True),
        _plain("EVENT", "event_id", wide=True),
        _plain("URL", "url", wide=True),
    ),
    "log": (
        _plain("ORIGIN", "origin"),
        _plain("STATE", "state"),
        _plain("LEAVES", "tree_size"),
        Column(title="PUBLISHED", cell=lambda item, _: _head(item, "tree_size")),
        Column(title="HEAD", cell=lambda item, moment: age(item["head"] and item["head"]["timestamp"], moment)),
        Column(title="WITNESSES", cell=_witnesses),
        _plain("WAITING", "waiting_attempts"),
        _plain("REASON", "frozen_reason"),
        Column(title="ROOT", cell=lambda item, _: _head(item, "root_hash"), wide=True),
        Column(title="KEY", cell=lambda item, _: _head(item, "public_key"), wide=True),
        _plain("CONTINUED BY", "continued_by", wide=True),
    ),
    "keys": (
        _NAME,
        _plain("VERSION", "version"),
        _plain("ALGORITHM", "algorithm"),
        _plain("LIVE", "live"),
        _ago("SINCE", "not_before"),
        _ago("UNTIL", "not_after"),
        Column(title="USED BY", cell=lambda item, _: ", ".join(item["used_by"]) or "-"),
        _plain("PUBLIC KEY", "public_key", wide=True),
        _plain("ID", "id", wide=True),
    ),
    "replays": (
        _NAME,
        _plain("PHASE", "phase"),
        _plain("ENDPOINT", "endpoint"),
        _plain("MATCHED", "matched"),
        _plain("ENQUEUED", "enqueued"),
        _plain("DELIVERED", "delivered"),
        _plain("FAILED", "failed"),
        _ago("AGE", "declared_at"),
        _plain("DRY RUN", "dry_run", wide=True),
        _plain("RATE", "rate", wide=True),
        _plain("MESSAGE", "message", wide=True),
        _plain("ID", "id", wide=True),
    ),
    "blocked": (
        *_WHERE,
        _plain("KEY", "key"),
        _plain("REASON", "last_reason"),
        _counted("WAITING", "waiting", "waiting_more"),
        _ago("BLOCKED", "blocked_at"),
        _plain("ATTEMPTS", "attempts", wide=True),
        _plain("EVENT", "event_id", wide=True),
        _plain("DESTINATION ID", "destination_id", wide=True),
    ),
    "processes": (
        _plain("COMPONENT", "component"),
        _plain("INSTANCE", "instance"),
        _plain("GENERATION", "generation"),
        _ago("AGE", "started_at"),
        _ago("SEEN", "seen_at"),
        _plain("ADDRESS", "address"),
    ),
}

"""The tables of the demonstration, from what the console's API says."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

Item = Mapping[str, Any]

_STATES: Final = {
    "pending": "yellow",
    "sending": "cyan",
    "delivered": "green",
    "exhausted": "red",
    "cancelled": "dim",
}


def posts(rows: Iterable[tuple[str, str, int, str]]) -> Table:
    """Show what was posted and what the receiver answered."""
    table = _table("Webhooks posted", "what", "to", "answer", "event")
    for what, to, status, event in rows:
        table.add_row(what, to, Text(str(status), style="green" if status < 300 else "red"), _short(event))
    return table


def events(items: Iterable[Item]) -> Table:
    """Show the events that were stored, oldest first."""
    table = _table("Events: accepted once, stored durably", "event", "endpoint", "received", "bytes", "SHA-256")
    for item in items:
        received, hashed = _clock(item["received_at"]), item["body_hash"][:16] + "…"
        table.add_row(_short(item["id"]), item["endpoint"], received, str(item["size"]), hashed)
    return table


def deliveries(items: Iterable[Item]) -> Table:
    """Show where each event had to go, and how far it has come."""
    table = _table(
        "Deliveries: one for each event and destination", "endpoint", "destination", "state", "tries", "last"
    )
    for item in items:
        state = Text(item["state"], style=_STATES[item["state"]])
        table.add_row(
            item["endpoint"], item["destination"], state, str(item["attempts"]), item["last_reason"] or "delivered"
        )
    return table


def attempts(items: Iterable[Item]) -> Table:
    """Show every try, oldest first, and its place in the log."""
    table = _table(
        "Attempts: each one is a leaf of the log", "destination", "try", "at", "outcome", "status", "ms", "leaf"
    )
    for item in items:
        leaf = "-" if item["leaf_index"] is None else str(item["leaf_index"])
        style = "green" if item["outcome"] == "delivered" else "red"
        status = str(item["response_status"] or item["reason"])
        outcome = Text(item["outcome"], style=style)
        milliseconds = f"{item['duration_ms']:.1f}"
        table.add_row(
            item["destination"], str(item["number"]), _clock(item["started_at"]), outcome, status, milliseconds, leaf
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="dim")
    table.padding, table.pad_edge = (0, 1, 0, 0), False  # all of it fits into 80 columns
    for column in columns:
        table.add_column(
            column, no_wrap=True, justify="right" if column in ("tries", "try", "ms", "leaf", "bytes") else "left"
        )
    return table


def _short(name: str) -> str:
    """Return the end of an id: that is where ids of the same second differ."""
    return f"…{name[-12:]}" if name.count("-") == 4 else name


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%H:%M:%S.%f")[:-3]

"""What commands print: tables as kubectl has them, JSON, YAML, ages, and hints that do not get into a pipe.

On a terminal states are coloured; anywhere else it is plain text that cut, grep and awk can work with. What comes from
outside (URLs, content types, reasons) cannot write control characters to a person's terminal.
"""

import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

Item = Mapping[str, Any]

GAP: Final = "   "
_STYLES: Final[Mapping[str, str]] = {
    "True": "green",
    "delivered": "green",
    "Active": "green",
    "pending": "yellow",
    "sending": "cyan",
    "exhausted": "red",
    "False": "red",
    "Frozen": "bold red",
    "acknowledged": "green",
    "missing": "yellow",
    "invalid": "red",
    "no_key": "red",
    "refused": "red",
    "unacknowledged": "red",
    "unreachable": "red",
    "timed_out": "red",
    "cancelled": "dim",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its title, and what it shows of an item at a moment."""

    title: str
    cell: Callable[[Item, datetime], str]
    wide: bool = False  # only with -o wide


@dataclass(slots=True, kw_only=True)
class Table:
    """Prints rows under one heading; widths only grow, so that rows which come later still line up."""

    columns: Sequence[Column]
    _widths: list[int] = field(default_factory=list)
    _console: Console = field(
        default_factory=lambda: Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    )

    def print(self, items: Iterable[Item], now: datetime) -> None:
        """Print the items, one a line, under the heading if they are the first."""
        lines = [[printable(column.cell(item, now)) for column in self.columns] for item in items]
        if not lines:
            return
        heading = [] if self._widths else [[column.title for column in self.columns]]
        widths = self._widths or [0] * len(self.columns)
        for line in heading + lines:
            widths = [max(width, cell_len(cell)) for width, cell in zip(widths, line, strict=True)]
        self._widths = widths
        for line in heading:
            self._line(line, lambda _: "bold")
        for line in lines:
            self._line(line, lambda cell: _STYLES.get(cell, ""))
        sys.stdout.flush()

    def _line(self, cells: Sequence[str], style: Callable[[str], str]) -> None:
        line = Text()
        for cell, width in zip(cells, self._widths, strict=True):
            line.append(cell, style(cell))
            line.append(" " * (width - cell_len(cell)) + GAP)
        line.rstrip()
        self._console.print(line)


def printable(text: str) -> str:
    """Return text that can do nothing to a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode()), flush=True)


def print_json_items(items: Iterable[object]) -> None:
    """Print a list as indented JSON, each item as soon as it comes: there may be more than fit into memory."""
    before = '{\n  "items": ['
    for item in items:
        text = json.dumps(item, indent=2, ensure_ascii=not _speaks_unicode())
        print(f"{before}\n{textwrap.indent(text, '    ')}", end="")
        before = ","
    print('{\n  "items": []\n}' if before != "," else "\n  ]\n}", flush=True)


def print_json_line(value: object) -> None:
    """Print a value as JSON on one line, for what never ends."""
    print(json.dumps(value), flush=True)


def print_yaml(value: object, *, begins: bool = False) -> None:
    """Print a value as YAML; `begins` puts a document mark before it."""
    import yaml  # a fifth of what a command imports, and of use to -o yaml alone

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=_speaks_unicode(), width=120)
    print(("---\n" if begins else "") + text, end="", flush=True)


def print_yaml_items(items: Iterable[object]) -> None:
    """Print a list as YAML, each item as soon as it comes."""
    before = "items:\n"
    for item in items:
        print(before, end="")
        print_yaml([item])
        before = ""
    if before:
        print("items: []", flush=True)


def age(moment: str | None, now: datetime) -> str:
    """Return how long ago a time of the API was: 5s, 3m, 7h, 12d; `in 5s` if it is still to come."""
    if moment is None:
        return "-"
    seconds = (now - datetime.fromisoformat(moment)).total_seconds()
    if seconds < -1:
        return f"in {duration(-seconds)}"
    return duration(max(seconds, 0.0))


def duration(seconds: float) -> str:
    """Return a number of seconds in the unit that reads best."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def size(count: int | None) -> str:
    """Return a number of bytes in the unit that reads best."""
    if count is None:
        return "erased"
    value = float(count)
    for unit in ("B", "KiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} MiB"


def now() -> datetime:
    """Return the time of this machine."""
    return datetime.now(UTC)


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") == "utf8"

"""Prints a page: marks are coloured on a terminal, and what comes from outside can do nothing to it."""

from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.text import Text

from kapsel_cli.kubectl.page import Line, Mark
from kapsel_cli.output import printable

_STYLES: Final = {Mark.FINE: "green", Mark.NOTE: "cyan", Mark.WARNING: "yellow", Mark.BAD: "bold red"}


def print_page(lines: Iterable[Line]) -> None:
    """Print the lines, each below the one that it belongs to."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for line in lines:
        text = Text("  " * line.indent)
        text.append(f"{line.mark or ' '} ", _STYLES[line.mark] if line.mark else "")
        text.append(printable(line.text), "dim" if line.text.startswith("→") else "")
        console.print(text)

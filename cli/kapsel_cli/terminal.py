"""What a person reads while `kapsel up` runs: one short line for each thing that happened.

Used by `up` and what it calls. Lines go to standard output, problems to standard error, coloured only on a terminal.
"""

import os
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape


class _Stream(Console):
    """A stream whose reader may go away: what is supervised must not end because nobody looks on."""

    def on_broken_pipe(self) -> None:
        """Write into nothing from now on."""
        self.file = Path(os.devnull).open("w")  # noqa: SIM115 - open as long as the process


class Terminal:
    """The two streams of a person's terminal."""

    def __init__(self) -> None:
        self._out = _Stream(highlight=False, soft_wrap=True)
        self._err = _Stream(highlight=False, soft_wrap=True, stderr=True)

    def done(self, text: str) -> None:
        """Say that a step is done."""
        _print(self._out, f"[green]✓[/] {escape(text)}")

    def say(self, text: str) -> None:
        """Say what is going on."""
        _print(self._out, f"[dim]·[/] {escape(text)}")

    def row(self, name: str, width: int, value: str) -> None:
        """Show a name and what belongs to it."""
        _print(self._out, f"  {escape(name):<{width}}  [cyan]{escape(value)}[/]")

    def warn(self, text: str) -> None:
        """Say what went wrong while the rest goes on."""
        _print(self._err, f"[yellow]![/] {escape(text)}")


def _print(stream: Console, markup: str) -> None:
    with suppress(OSError):  # a terminal that was closed
        stream.print(markup)

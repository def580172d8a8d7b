"""What a person reads while `kapsel up` runs: one short line for each thing that happened.

Used by `up` and what it calls. Lines go to standard output, problems to standard error, coloured only on a terminal.
"""

from rich.console import Console
from rich.markup import escape


class Terminal:
    """The two streams of a person's terminal."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(highlight=False, soft_wrap=True, stderr=True)

    def done(self, text: str) -> None:
        """Say that a step is done."""
        self._out.print(f"[green]✓[/] {escape(text)}")

    def say(self, text: str) -> None:
        """Say what is going on."""
        self._out.print(f"[dim]·[/] {escape(text)}")

    def row(self, name: str, width: int, value: str) -> None:
        """Show a name and what belongs to it."""
        self._out.print(f"  {escape(name):<{width}}  [cyan]{escape(value)}[/]")

    def warn(self, text: str) -> None:
        """Say what went wrong while the rest goes on."""
        self._err.print(f"[yellow]![/] {escape(text)}")

    def fail(self, text: str) -> None:
        """Say what could not be done."""
        self._err.print(f"[red]✗[/] {escape(text)}")

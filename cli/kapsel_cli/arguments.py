"""How every command declares itself to argparse, so that all of them look alike, in `kapsel` and in the kubectl plugin.

Called by the `register` of each command's module.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - its only name

PROGRAM: Final = "kapsel"
# Commands that both programs have. What starts with any other word is the one program's alone.
_COMMAND: Final = re.compile(r"(?<![\w./-])kapsel (?=(?:get|tail|retry|cancel|resume|erase|proof|secret)\b)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How the commands of one program reach a console."""

    program: str  # what a person types before the command
    add_options: Callable[[argparse.ArgumentParser], None]  # which say which console; sets `connect`
    taken: frozenset[str] = frozenset()  # short options and words that mean something else in this program

    def worded(self, text: str) -> str:
        """Return a text with its commands as they are typed in this program."""
        return worded(text, self.program)


def worded(text: str, program: str) -> str:
    """Return a text that names commands of `kapsel` as they are typed in a program."""
    return text if program == PROGRAM else _COMMAND.sub(f"{program} ", text)


def add_command(subparsers: Subparsers, name: str, *, summary: str, text: str) -> argparse.ArgumentParser:
    """Add a command with a one-line summary and a text that teaches: what it does, then examples."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_debug(parser)
    return parser


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Add --debug, which may stand before or after the command."""
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error as well"
    )

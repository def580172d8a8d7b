"""How every command declares itself to argparse, so that all of them look alike, in `kapsel` and in the kubectl plugin.

Called by the `register` of each command's module.
"""

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - its only name

PROGRAM: Final = "kapsel"
USAGE: Final = 2  # the exit code
WAIT: Final = 60.0  # seconds: six times the interval at which heads are published by default
# Commands that both programs have. What starts with any other word is the one program's alone.
_COMMAND: Final = re.compile(
    r"(?<![\w./-])kapsel (?=(?:try|get|explain|tail|retry|cancel|resume|unblock|erase|proof|secret)\b)"
)


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


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one sentence, and which --help explains it."""

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is not known here: argparse leaves that to the parser of the whole program, which knows less."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """End the program without the usage, which may be longer than the screen."""
        self.exit(USAGE, f"{PROGRAM}: {message}; see {self.prog} --help\n")


def add_command(subparsers: Subparsers, name: str, *, summary: str, text: str) -> Parser:
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


def add_wait(parser: argparse.ArgumentParser, until: str) -> None:
    """Declare how long a command waits for what cannot be done yet; `until` says in its help what for."""
    parser.add_argument(
        "--wait",
        nargs="?",
        type=seconds,
        const=WAIT,
        default=0.0,
        metavar="SECONDS",
        help=f"wait until {until}, at most so long (default: do not wait; alone: {WAIT:g})",
    )


def seconds(text: str) -> float:
    """Return a number of seconds as an option has it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 86400")
    return value

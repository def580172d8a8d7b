"""How every command declares itself to argparse, so that all of them look alike.

Called by the `register` of each command's module.
"""

import argparse
from typing import TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - its only name


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

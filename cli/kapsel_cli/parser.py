"""The argument parser, and with it the list of commands.

Called by `__main__`, and by the command that prints shell completions. A command is a module with
`register(subparsers)`, which declares its arguments and help, and `run(arguments) -> int`, which does it and returns
the exit code. The modules of commands that are not asked for are not imported, and what is slow a command imports
inside `run`, so that answers come at once and `--help` is instant.
"""

import argparse
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Final

from kapsel_cli.arguments import Parser, add_debug

# Each with the module that declares it, in the order in which a newcomer needs them.
COMMANDS: Final = {
    "up": "up",
    "send": "send",
    "try": "try_out",
    "get": "get",
    "explain": "explain",
    "tail": "tail",
    "retry": "retry",
    "cancel": "retry",
    "resume": "retry",
    "unblock": "retry",
    "replay": "replay",
    "erase": "erase",
    "secret": "secret",
    "proof": "proof",
    "audit": "audit",
    "log": "log",
    "witness": "witness",
    "run": "run",
    "smoke": "smoke",
    "completion": "completion",
}

TEXT: Final = """\
kapsel takes webhooks in, never loses one, delivers each, and can prove it afterwards.

  kapsel up examples/quickstart                         run everything on this machine
  kapsel send shop/github-orders push.json --manifests examples/quickstart
                                                        post a webhook as a provider would
  kapsel get deliveries --state pending --watch         see what waits
  kapsel proof ATTEMPT_ID > proof.json                  take a proof of delivery along
  kapsel-verify --proof proof.json --public-key KEY     check it, with nothing but the file and the key

`kapsel COMMAND --help` explains each command with examples.
"""


def build(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of the command `kapsel`: the whole of it, or as much as a command line that is given needs."""
    parser = Parser(
        prog="kapsel", description=TEXT, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_debug(parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _modules(argv):
        import_module(f"kapsel_cli.{module}").register(subparsers)
    return parser


def _modules(argv: Sequence[str]) -> Iterable[str]:
    """Return the module of the command that is asked for, and all of them if it is none, or help for all."""
    first = next((word for word in argv if word != "--debug"), "")
    return [COMMANDS[first]] if first in COMMANDS else dict.fromkeys(COMMANDS.values())

"""The whole argument parser, and with it the list of commands.

Called by `__main__`, and by the command that prints shell completions. A command is a module with
`register(subparsers)`, which declares its arguments and help, and `run(arguments) -> int`, which does it and returns
the exit code. It imports what is slow inside `run`, so that `--help` is instant.
"""

import argparse
from typing import Final

from kapsel_cli import (
    audit,
    completion,
    erase,
    explain,
    get,
    log,
    proof,
    replay,
    retry,
    run,
    secret,
    send,
    smoke,
    tail,
    try_out,
    up,
    witness,
)
from kapsel_cli.arguments import add_debug

# In the order in which a newcomer needs them.
COMMANDS: Final = (
    up,
    send,
    try_out,
    get,
    explain,
    tail,
    retry,
    replay,
    erase,
    secret,
    proof,
    audit,
    log,
    witness,
    run,
    smoke,
    completion,
)

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


def build() -> argparse.ArgumentParser:
    """Return the parser of the command `kapsel`."""
    parser = argparse.ArgumentParser(
        prog="kapsel", description=TEXT, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_debug(parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(subparsers)
    return parser

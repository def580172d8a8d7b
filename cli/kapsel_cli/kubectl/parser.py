"""The whole argument parser of the plugin, and with it the list of its commands.

Called by `__main__` and by what completes commands in a shell. The commands that `kapsel` has too declare themselves
here with another way to reach the console.
"""

import argparse
from typing import Final

from kapsel_cli import erase, explain, get, proof, retry, tail, try_out
from kapsel_cli.arguments import Parser, add_debug
from kapsel_cli.get import KINDS
from kapsel_cli.kubectl import replay, secret, status, verify
from kapsel_cli.kubectl.options import PROGRAM, THROUGH_CLUSTER

TEXT: Final = """\
kapsel in a cluster, with your own rights: what kubectl knows, and what only the database of a Relay knows, asked of its
console through the API server.

  kubectl kapsel status -A                                  what is wrong, and what to do about it
  kubectl kapsel deliveries -n shop --state pending --watch see what waits
  kubectl kapsel tail -n shop --endpoint github-orders      follow what is tried
  kubectl kapsel verify -n shop ATTEMPT_ID --wait           prove that a delivery was made
  kubectl kapsel replay orders -n shop --from 2h --wait     deliver again what was given up

`kubectl kapsel COMMAND --help` explains each command with examples.
"""


def build() -> argparse.ArgumentParser:
    """Return the parser of the command `kubectl kapsel`."""
    parser = Parser(
        prog=PROGRAM, description=TEXT, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_debug(parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    status.register(subparsers)
    for kind in KINDS:
        get.register_kind(subparsers, kind, THROUGH_CLUSTER)
    get.register(subparsers, THROUGH_CLUSTER)
    explain.register(subparsers, THROUGH_CLUSTER)
    try_out.register(subparsers, THROUGH_CLUSTER)
    tail.register(subparsers, THROUGH_CLUSTER)
    replay.register(subparsers)
    retry.register(subparsers, THROUGH_CLUSTER)
    erase.register(subparsers, THROUGH_CLUSTER)
    proof.register(subparsers, THROUGH_CLUSTER)
    verify.register(subparsers)
    secret.register(subparsers)
    return parser

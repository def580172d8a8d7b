"""`kubectl kapsel status`: one page that says what is wrong, and what to do about it."""

import argparse
from typing import Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.following import hint
from kapsel_cli.kubectl.options import add_cluster, open_cluster

UNWELL: Final = 3  # exit code

TEXT: Final = """\
Shows how kapsel is in a namespace, or in all of them: each Relay, then whatever is not as it should be, each with its
reason and what to do about it, and one line for all that is well. Made for the moment in which somebody was woken up.

It reads the status of resources alone, so it works while a Relay's console or database is down.

examples:
  kubectl kapsel status -n shop
  kubectl kapsel status -A
  kubectl kapsel status -A || page-somebody

exit codes: 0 all is well, 1 it could not be looked at, 2 the arguments are wrong, 3 something wants a person
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "status", summary="what is wrong, and what to do about it", text=TEXT)
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="all namespaces")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    from kapsel_cli import output
    from kapsel_cli.kubectl.cluster import resources
    from kapsel_cli.kubectl.errors import ForbiddenError
    from kapsel_cli.kubectl.page import KINDS, is_well, page
    from kapsel_cli.kubectl.paper import print_page
    from kapsel_cli.kubectl.view import view

    cluster = open_cluster(arguments)
    namespace = None if arguments.all_namespaces else cluster.namespace
    found = []
    for plural, kind in KINDS.items():
        try:
            found += [view(kind, one) for one in cluster.items(resources(plural, namespace))]
        except ForbiddenError as error:
            if kind == "Relay":
                raise
            hint(f"kapsel: {plural} are left out, for {error.problem}.")
    if not found:
        hint(f"There is nothing of kapsel in {'any namespace' if namespace is None else f'namespace {namespace}'}.")
        return 0
    lines = page(found, output.now())
    print_page(lines)
    return 0 if is_well(lines) else UNWELL

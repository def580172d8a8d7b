"""The command `kubectl-kapsel`, which kubectl runs for `kubectl kapsel`."""

import sys
from collections.abc import Sequence

from kapsel_cli.__main__ import guarded
from kapsel_cli.kubectl.parser import build


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return guarded(build().parse_args(argv), extra="kubectl")


if __name__ == "__main__":
    sys.exit(main())

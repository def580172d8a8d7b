"""The command `kapsel`: runs one command and turns what it cannot go on from into one sentence and a next step."""

import argparse
import os
import sys
from collections.abc import Sequence

from kapsel_cli.errors import CliError, ManifestsError

FAILED = 1
INTERRUPTED = 130  # as shells report SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from kapsel_cli.parser import build  # the plugin uses this module, and not that one

    words = sys.argv[1:] if argv is None else argv
    return guarded(build(words).parse_args(words), extra="cli")


def guarded(arguments: argparse.Namespace, *, extra: str) -> int:
    """Run the command that was asked for, of the program that the extra `extra` installs, and return its exit code."""
    debug = getattr(arguments, "debug", False)  # argparse leaves the attribute out when the flag is not given
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough; nothing may be written when Python closes its streams.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CliError as error:
        if debug:
            raise
        for line in error.lines if isinstance(error, ManifestsError) else ():
            print(line, file=sys.stderr)
        print(f"kapsel: {error}", file=sys.stderr)
    except Exception as error:
        if debug:
            raise
        print(f"kapsel: {_unexpected(error, extra)}", file=sys.stderr)
    return FAILED


def _unexpected(error: Exception, extra: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        # The base install is the verifier, and brings this command along.
        package = error.name.partition(".")[0]
        return f"{package} is not installed. Run `pip install '.[{extra}]'` in a checkout of kapsel"
    return f"{type(error).__name__}: {error}. Run it again with --debug to see where."


if __name__ == "__main__":
    sys.exit(main())

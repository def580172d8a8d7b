"""`kapsel witness`: a witness of transparency logs on this machine, set up by options.

For a second party, who has nothing else of kapsel. It prints the verifier key to hand to the log's operator, and then
becomes the process that `kapsel run witness` starts: the options are its settings in other words.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.errors import CliError

DIRECTORY: Final = Path("witness")
LISTEN: Final = "127.0.0.1:7380"

TEXT: Final = """\
Cosigns the heads of transparency logs, kapsel's or others' (C2SP tlog-witness): it signs a head only if that extends
the last one it signed, and never forgets which that was. A log cannot show two people two histories if both ask for the
cosignature of one witness; so a witness must be run by somebody whom the log's operator does not control.

Two commands: the first makes the key and prints its public half, to be handed to the log's operator and to all who
verify; the second runs, with the log's key that its operator handed over.

examples:
  kapsel witness --name witness.example.com/w1 --print-key
  kapsel witness --log 'log.example.com/shop+1f2e3d4c+AbC...' --listen 0.0.0.0:7380

The directory holds the key and what was cosigned. Never restore it from a backup: a witness that went back in time
vouches for two histories. If it is lost, start a new one with another name. docs/witnesses.md has the rest: TLS,
containers, systemd, metrics.
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "witness", summary="cosign the heads of somebody's log", text=TEXT)
    parser.add_argument(
        "--directory", type=Path, default=DIRECTORY, metavar="DIR", help="where key and state are (default: ./witness)"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name of a new witness: a URL without scheme, of a domain of yours"
    )
    parser.add_argument(
        "--log", action="append", default=[], metavar="VKEY", help="verifier key of a log to cosign; may be repeated"
    )
    parser.add_argument("--logs", type=Path, metavar="FILE", help="key set with more logs: keys.json, or a vkey a line")
    parser.add_argument(
        "--listen", type=_address, default=LISTEN, metavar="HOST:PORT", help=f"where logs ask (default: {LISTEN})"
    )
    parser.add_argument(
        "--health", type=_address, metavar="HOST:PORT", help="where health and metrics are (default: any free port)"
    )
    parser.add_argument("--print-key", action="store_true", help="print the verifier key, made if need be, and end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the key, and unless that is all, become the witness."""
    from kapsel_witness.errors import WitnessError
    from kapsel_witness.key import open_key

    try:
        key = open_key(arguments.directory, arguments.name)
    except WitnessError as error:
        raise CliError(str(error), "See `kapsel witness --help`") from error
    if not arguments.print_key:
        _become_one(arguments, key.public.encode())
    print(key.public.encode())
    return 0


def _become_one(arguments: argparse.Namespace, vkey: str) -> NoReturn:
    if not arguments.log and arguments.logs is None:
        raise CliError("there is no log to cosign", "Name its verifier key with --log, or a file of them with --logs")
    print(f"witness {vkey}", file=sys.stderr, flush=True)
    os.execve(sys.executable, [sys.executable, "-P", "-m", "kapsel_witness"], _environment(arguments))  # noqa: S606


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
    (host, port), health = arguments.listen, arguments.health
    settings = {
        "KAPSEL_WITNESS_DIRECTORY": str(arguments.directory),
        "KAPSEL_WITNESS_HOST": host,
        "KAPSEL_WITNESS_PORT": port,
    }
    if arguments.log:
        settings["KAPSEL_WITNESS_LOGS"] = " ".join(arguments.log)
    if arguments.logs is not None:
        settings["KAPSEL_WITNESS_LOGS_FILE"] = str(arguments.logs)
    if health is not None:
        settings |= {"KAPSEL_HEALTH_HOST": health[0], "KAPSEL_HEALTH_PORT": health[1]}
    # What is not about kapsel comes from the person's own environment; its variables are for other processes.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")}
    return kept | settings


def _address(text: str) -> tuple[str, str]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT, such as {LISTEN}")
    return host.removeprefix("[").removesuffix("]"), port

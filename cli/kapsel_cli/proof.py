"""`kapsel proof`: the proof file of one attempt, to be checked by anybody with kapsel-verify."""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kapsel_cli.arguments import Reach, Subparsers, add_command, add_wait
from kapsel_cli.client import OVER_HTTP, Client, connect, path
from kapsel_cli.errors import CliError, RefusedError, UnreachableError

NOT_YET: Final = 3  # exit code

TEXT: Final = """\
Writes the proof of one attempt to standard output: that it was made, what came of it, and that the log says so under a
signed head. It can be made once the attempt is in the log (a quarter of a second) and a head over it is published (ten
seconds, by default); until then the exit code is 3, or use --wait.

With --anchored it is under a head that a block of Bitcoin dates, if the log has calendars asked to date its heads. That
takes hours, and until then the exit code is 3; kapsel-verify needs the header of that block, and says of which.

examples:
  kapsel get attempts                                     find the id
  kapsel proof ATTEMPT_ID --wait > proof.json             take it along
  kapsel-verify --proof proof.json --keys keys.json       check it, offline, with keys you got on another way
  kapsel proof ATTEMPT_ID --anchored > proof.json         take a proof along that nobody here could have backdated

exit codes: 0 done, 1 it could not be done, 2 the arguments are wrong, 3 not yet
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a proof still waits for."""

    detail: str
    held: bool = False  # it does not come by itself


def register(subparsers: Subparsers, reach: Reach = OVER_HTTP) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "proof", summary="take a proof of delivery along", text=reach.worded(TEXT))
    parser.add_argument("attempt", metavar="ATTEMPT_ID", help=reach.worded("id of an attempt: `kapsel get attempts`"))
    parser.add_argument("--anchored", action="store_true", help="under a head that a block of Bitcoin dates")
    add_wait(parser, "it can be made")
    parser.add_argument("-f", "--file", type=Path, metavar="PATH", help="write it here instead")
    reach.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the proof, or say why there is none yet."""
    client = connect(arguments)
    found = fetch(client, arguments.attempt, time.monotonic() + arguments.wait, anchored=arguments.anchored)
    if isinstance(found, Missing):
        return wait_in_vain(found, waited=bool(arguments.wait), soon=not arguments.anchored)
    if arguments.file is None:
        sys.stdout.buffer.write(found)
        sys.stdout.buffer.flush()
        return 0
    try:
        arguments.file.write_bytes(found)
    except OSError as error:
        raise CliError(f"{arguments.file} cannot be written: {error.strerror}", "Name another file") from error
    return 0


def wait_in_vain(missing: Missing, *, waited: bool, soon: bool = True) -> int:
    """Say what a proof still waits for, and return the exit code for that."""
    more = "" if waited or not soon else ", or let this command wait: --wait"
    when = "in a few seconds" if soon else "in some hours"
    advice = "" if missing.held else f" Try again {when}{more}."
    print(f"kapsel: there is no proof yet: {missing.detail}.{advice}", file=sys.stderr)
    return NOT_YET


def fetch(client: Client, attempt_id: str, deadline: float, *, anchored: bool = False) -> bytes | Missing:
    """Return the proof, under a head that a block dates if `anchored`, or what it still waits for at the deadline."""
    kind = "blockchain-proof" if anchored else "proof"
    while True:
        wait, missing = 1.0, Missing(detail="the console does not answer")
        try:
            answer = client.request("GET", path("attestation", kind, attempt_id))
            if answer.status == 200:
                return answer.body
            if answer.status != 202:
                raise client.refusal(answer)
            said = answer.json()
            missing = Missing(detail=str(said["detail"]), held=bool(said["held"]))
            wait = _retry_after(answer.headers.get("retry-after"))
        except (UnreachableError, RefusedError) as error:
            lasting = isinstance(error, RefusedError) and not error.temporary
            if lasting or time.monotonic() >= deadline:
                raise
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return missing
        time.sleep(min(wait, remaining))


def _retry_after(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 1.0

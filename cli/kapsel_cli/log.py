"""`kapsel log`: what people do with the log itself, below the attestor: examine it, rebuild its tiles, continue it.

On the database itself, for these are for when the attestor signs nothing; docs/fork-recovery.md says when to use which.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.errors import CliError

if TYPE_CHECKING:
    from kapsel_store.database import Connection
    from kapsel_store.tlog import LogState

FOUND: Final = 1  # exit code of a check that found something
LOCK_SECONDS: Final = 15.0  # an attestor that cannot sign holds the lock for a moment at a time

TEXT: Final = """\
Works on the log itself: on the database that KAPSEL_DATABASE_URL (or KAPSEL_DATABASE_URL_FILE) names, or on that of
--data-dir, by default .kapsel here or above; where no `kapsel up` runs on it, its Postgres is started meanwhile.
docs/fork-recovery.md says when to use which of these.

  check      examines every leaf, tile, head, chain and statement, and changes nothing
  rebuild    makes all tiles anew from the leaves, if every published head says that they are right
  recover    begins the log that continues one which must not be signed any more

examples:
  kapsel log check
  kapsel log rebuild --unfreeze
  kapsel log recover log.example.com/orders-2 --checkpoint newest.txt --reason "database restored from Monday's backup"
  kubectl exec -n shop deploy/main-deliverer -c attestor -- kapsel log check
"""

CHECK: Final = """\
Examines the log, of all of its leaves: that each has the hash that stands in the tree, can be read, and continues its
endpoint's chain; that the tiles follow from each other; that each head is as it was signed and fits the tree; that
statements hold. It reads one moment of the database and may run beside everything else. Of an erased leaf the hash is
taken as it is.

examples:
  kapsel log check
  kapsel log check --log log.example.com/orders --data-dir /var/lib/kapsel

exit codes: 0 everything fits, 1 something does not, a log is frozen and not continued, or it could not be done, 2 the
arguments are wrong
"""

REBUILD: Final = """\
Makes all tiles anew from the leaves and replaces those that are stored, in one transaction, if the tree has the root
that was stored and every published head fits it. It holds the log's lock, so no attestor appends meanwhile; one that
leads the log must be stopped first. Of an erased leaf the hash is taken out of its old tile.

examples:
  kapsel log rebuild                                      of a log whose tiles were damaged
  kapsel log rebuild --unfreeze                           and let the attestor sign again, if nothing else is wrong

exit codes: 0 done, 1 it could not be done and nothing was changed, 2 the arguments are wrong
"""

RECOVER: Final = """\
Begins the log ORIGIN, which continues the newest log of this database that was signed: the old one is closed for good,
the first leaf of the new one is a statement with the old one's last checkpoint, and attempts that no head of the old
one covers wait for a leaf in the new one. The attestor does the same by itself when the configuration names a new
origin; this command is for saying why, and for stating a later checkpoint than this database has, as receivers and
witnesses keep it. Name the origin in an AttestationLog afterwards, as docs/fork-recovery.md has it in step 2.

examples:
  kapsel log recover log.example.com/orders-2 --reason "database restored from Monday's backup"
  kapsel log recover log.example.com/orders-2 --checkpoint newest.txt --yes

exit codes: 0 done, 1 it could not be done and nothing was changed, 2 the arguments are wrong
"""

Work = Callable[["Connection", argparse.Namespace], Coroutine[Any, Any, int]]


def register(subparsers: Subparsers) -> None:
    """Declare the commands."""
    parser = add_command(subparsers, "log", summary="examine, rebuild or continue the log", text=TEXT)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary, text, work in (
        ("check", "examine every leaf, tile, head, chain and statement", CHECK, _check),
        ("rebuild", "make all tiles anew from the leaves", REBUILD, _rebuild),
        ("recover", "begin the log that continues this one", RECOVER, _recover),
    ):
        command = add_command(commands, name, summary=summary, text=text)
        command.add_argument(
            "--data-dir", type=Path, metavar="PATH", help="data directory of a `kapsel up` (default: .kapsel)"
        )
        command.set_defaults(run=run, work=work)
        if name != "recover":
            help_ = "origin of the log (default: all of them)" if name == "check" else "origin (default: the newest)"
            command.add_argument("--log", metavar="ORIGIN", help=help_)
        if name == "rebuild":
            command.add_argument("--unfreeze", action="store_true", help="let the log be signed again afterwards")
        if name == "recover":
            command.add_argument("origin", metavar="ORIGIN", help="of the new log, such as log.example.com/orders-2")
            command.add_argument(
                "--checkpoint", type=Path, metavar="FILE", help="a later checkpoint of the old log than is stored"
            )
            command.add_argument("--reason", metavar="TEXT", help="why, for auditors; it stands in the log for ever")
            command.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Connect and do the work."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from kapsel_cli.log_database import connected

    async with connected(arguments.data_dir, os.environ) as connection:
        code: int = await arguments.work(connection, arguments)
        return code


async def _check(connection: "Connection", arguments: argparse.Namespace) -> int:
    from kapsel_store import tlog
    from kapsel_tlog.examination import examine

    fits = True
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        logs = await tlog.states(connection)
        for log in _chosen(logs, arguments.log):
            seen = await examine(connection, log, _progress(log))
            for finding in seen.findings:
                print(finding)
            if seen.untold:
                print(f"and {seen.untold} more")
            closed = tlog.continued_by(log, logs) is not None
            fits = fits and not seen.findings and (closed or log.frozen_reason is None)
            state = f"{'closed' if closed else 'frozen'}: {log.frozen_reason}" if log.frozen_reason else "not frozen"
            verdict = f"{len(seen.findings) + seen.untold} things do not fit" if seen.findings else "everything fits"
            print(
                f"{log.origin}: {seen.leaves} leaves ({seen.erased} erased, {seen.statements} statements), "
                f"{seen.heads} heads, {seen.endpoints} endpoints: {verdict}; {state}"
            )
    return 0 if fits else FOUND


async def _rebuild(connection: "Connection", arguments: argparse.Namespace) -> int:
    from kapsel_store import tlog
    from kapsel_tlog.errors import DamagedTreeError
    from kapsel_tlog.examination import examine
    from kapsel_tlog.rebuilding import rebuild

    log = _chosen(await tlog.states(connection), arguments.log)[-1]
    await _lock(connection, log.origin)
    try:
        log = await tlog.open_log(connection, log.origin)
        changed = await rebuild(connection, log, _progress(log))
    except DamagedTreeError as error:
        raise CliError(
            f"nothing was changed: {error}", "`kapsel log check` shows all that is wrong; docs/fork-recovery.md goes on"
        ) from error
    print(f"{log.origin}: {log.tree_size} leaves, {changed} tiles were wrong and are right now")
    if not arguments.unfreeze or log.frozen_reason is None:
        return 0
    if tlog.continued_by(log, await tlog.states(connection)) is not None:
        raise CliError(
            f"{log.origin} stays frozen: {log.frozen_reason}", "A log that another one continues is never signed again"
        )
    seen = await examine(connection, log, _progress(log))
    if seen.findings:
        raise CliError(f"{log.origin} stays frozen: {seen.findings[0]}", "`kapsel log check` shows all that is wrong")
    await tlog.unfreeze(connection, log.id)
    print(f"{log.origin} is not frozen any more; the attestor checks it against the fence before it signs")
    return 0


async def _recover(connection: "Connection", arguments: argparse.Namespace) -> int:
    from kapsel_store import tlog
    from kapsel_tlog import continuation
    from kapsel_tlog.errors import BusyLogError, NoContinuationError
    from kapsel_verifier.errors import VerificationError

    _require_origin(arguments.origin)
    logs = await tlog.states(connection)
    if any(log.origin == arguments.origin for log in logs):
        raise CliError(f"there is a log {arguments.origin} already", "A new log needs an origin of its own")
    if not logs:
        raise CliError("there is no log in this database", "The attestor begins one when the configuration names it")
    checkpoint = None if arguments.checkpoint is None else _read(arguments.checkpoint)
    if not arguments.yes:
        _ask(logs[-1], arguments.origin)
    await _lock(connection, arguments.origin)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            new = await continuation.begin(
                connection,
                arguments.origin,
                time.time_ns() // 1_000_000,
                reason=arguments.reason,
                checkpoint=checkpoint,
            )
            break
        except BusyLogError as error:
            if time.monotonic() > deadline:
                raise CliError(f"nothing was changed: {error}", "Stop it first") from error
            await asyncio.sleep(0.2)
        except (NoContinuationError, VerificationError) as error:
            raise CliError(f"nothing was changed: {error}", "Name the newest checkpoint of the old log") from error
    said = "its first leaf states where the old one ended" if new.tree_size else "nothing was signed before it"
    print(f"{new.origin} is begun: {said}. Now name it in an AttestationLog (docs/fork-recovery.md, step 2).")
    return 0


def _require_origin(origin: str) -> None:
    """Refuse what no AttestationLog can name: the log before it would be closed for one that is never signed."""
    from kapsel_resources.kinds.attestation_log import MAX_ORIGIN
    from kapsel_resources.kinds.model import FORMS, ORIGIN

    if len(origin) > MAX_ORIGIN or not re.fullmatch(ORIGIN, origin):
        raise CliError(
            f"{origin!r} cannot be the origin of a log: 1 to {MAX_ORIGIN} characters, {FORMS[ORIGIN]}",
            "Take a URL without scheme, under a domain you own, such as log.example.com/orders-2",
        )


def _ask(log: "LogState", origin: str) -> None:
    if not sys.stdin.isatty():
        raise CliError(
            "nobody can be asked whether to close a log", "Say --yes if you are sure: nothing opens it again"
        )
    print(f"The log {log.origin} has {log.tree_size} leaves.", file=sys.stderr)
    print(f"Close it for good, and go on as {origin}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("nothing was changed", "Say yes to close it")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise CliError(f"{path} cannot be read: {error}", "Name the file with the checkpoint") from error


def _chosen(logs: "Sequence[LogState]", origin: str | None) -> "list[LogState]":
    chosen = [log for log in logs if origin in (None, log.origin)]
    if chosen:
        return chosen
    if origin is None:
        raise CliError("there is no log in this database", "The attestor begins one when the configuration names it")
    names = ", ".join(log.origin for log in logs) or "none"
    raise CliError(f"there is no log {origin}", f"Those that there are: {names}")


async def _lock(connection: "Connection", origin: str) -> None:
    from kapsel_store import tlog

    deadline = time.monotonic() + LOCK_SECONDS
    while not await tlog.try_lock(connection, origin):
        if time.monotonic() > deadline:
            raise CliError(
                f"an attestor leads {origin}, so nothing was changed",
                "Stop it first: `kapsel up`, or the deliverers that it runs beside",
            )
        await asyncio.sleep(0.1)


def _progress(log: "LogState") -> Callable[[int], None]:
    """Return what shows on a terminal how far a log is read."""

    def show(done: int) -> None:
        if not sys.stderr.isatty():
            return
        end = "\n" if done >= log.tree_size else ""
        print(f"\r{log.origin}: {done} of {log.tree_size} leaves", end=end, file=sys.stderr, flush=True)

    return show

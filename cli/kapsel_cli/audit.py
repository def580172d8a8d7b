"""`kapsel audit`: follows somebody's log, and finds out whether it keeps its word.

For auditors, who have nothing of kapsel but this. What is checked is in `auditing.run`; here are options, the progress
bar, evidence and the exit code.
"""

import argparse
import asyncio
import json
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kapsel_cli.arguments import Subparsers, add_command, seconds
from kapsel_cli.errors import CliError

if TYPE_CHECKING:
    from kapsel_cli.auditing.continued import Audited
    from kapsel_cli.auditing.run import Demands, Outcome
    from kapsel_cli.auditing.state import State

STATE: Final = Path("audit.json")
MAX_AGE: Final = 1200.0  # seconds: heads are signed anew every ten minutes at the latest
INTERVAL: Final = 60.0  # seconds
READERS: Final = 2  # processes

TEXT: Final = """\
Follows a transparency log of kapsel through its public API (C2SP tlog-tiles), from its first leaf or from where the
last audit stopped, and checks that every head continues the one before, every leaf has its hash and its form, no
endpoint's records have a gap, the keys were valid and their successors announced, and that witnesses and whoever kept a
checkpoint see the same log. The keys come from you, never from the log.

examples:
  kapsel audit https://proofs.example.com --public-key "$(cat log.vkey)"
  kapsel audit https://proofs.example.com --policy policy.txt --follow --interval 300
  kapsel audit https://proofs.example.com --keys keys.json --checkpoint received.txt

Keep the state file: the next audit shows with it whether the log has kept its word. An audit that is interrupted goes
on where it was. If the log showed two histories, both signed heads are written beside the state file, as evidence.

exit codes: 0 all of it holds; 1 it could not be done, or a key, policy or file that was given cannot be used; 2 an
option is unknown or incomplete; 3 others have seen more of the log; 4 a server cannot be read; 10 to 49 as in
kapsel-verify: 19 tiles, 20 to 23 keys and signatures, 24 no quorum, 26 too old, 31 leaves that do not make the root, 32
a rewritten log or a split view; 50 missing records. Of several the gravest.
"""
# The gravest first: what proves that the log cheats, what it does not hold, whom it is by, what is not known.
_GRAVITY: Final = (32, 31, 50, 12, 30, 21, 20, 22, 23, 24, 3, 26)
_PASSING: Final = frozenset({0, 3, 4, 26})  # what --follow goes on after: the next look may show more


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "audit", summary="check a whole log, and go on checking it", text=TEXT)
    parser.add_argument("url", metavar="URL", help="prefix of the log: where its /checkpoint is")
    parser.add_argument(
        "--public-key", action="append", default=[], metavar="KEY", help="key to trust: a vkey or 64 hex digits"
    )
    parser.add_argument("--keys", type=Path, metavar="FILE", help="key set to trust: keys.json, or a vkey a line")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="logs, witnesses and quorum to trust (tlog-policy)")
    parser.add_argument(
        "--state", type=Path, default=STATE, metavar="FILE", help=f"what is remembered (default: {STATE})"
    )
    parser.add_argument(
        "--witness", action="append", default=[], metavar="URL", help="compare with what this witness saw; repeatable"
    )
    parser.add_argument(
        "--checkpoint", action="append", default=[], type=Path, metavar="FILE", help="compare with a head that you hold"
    )
    parser.add_argument(
        "--continues", type=Path, metavar="FILE", help="state file of the audit of the log that this one continues"
    )
    parser.add_argument(
        "--max-age", type=seconds, default=MAX_AGE, metavar="SECONDS", help=f"how old the head may be ({MAX_AGE:g})"
    )
    parser.add_argument(
        "--follow", action="store_true", help="go on, until interrupted or the log is found to be wrong"
    )
    parser.add_argument(
        "--interval", type=seconds, default=INTERVAL, metavar="SECONDS", help=f"between two audits ({INTERVAL:g})"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="token for the log's server, if it wants one; never shown to others",
    )
    parser.add_argument("--json", action="store_true", help="print each result as one line of JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audit, and return the exit code of the gravest finding."""
    from kapsel_cli.auditing.state import load

    demands = _demands(arguments)
    if not arguments.url.startswith(("http://", "https://")):
        raise CliError(f"{arguments.url!r} is not the URL of a log", "Write it like https://proofs.example.com")
    state = load(arguments.state)
    # Spawned, because a process that has threads must not be forked.
    with ProcessPoolExecutor(READERS, mp_context=get_context("spawn"), initializer=_quiet) as readers:
        return asyncio.run(_audits(arguments, demands, state, readers))


def _quiet() -> None:
    """Leave Ctrl-C to the process that people see."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def _audits(
    arguments: argparse.Namespace, demands: "Demands", state: "State", readers: ProcessPoolExecutor
) -> int:
    from kapsel_cli.auditing.run import AHEAD, Audit
    from kapsel_cli.auditing.source import Opened, Source
    from kapsel_cli.auditing.state import save

    token = None if arguments.token_file is None else _read(arguments.token_file).decode("ascii", "replace").strip()
    async with Opened(AHEAD) as session:
        while True:
            with _bar(arguments) as tell:
                audit = Audit(
                    Source(arguments.url, session, token),
                    demands,
                    state,
                    save=lambda now: save(arguments.state, now),
                    tell=tell,
                    executor=readers,
                )
                outcome = await audit.run()
            code = exit_code(outcome)
            _print(arguments, outcome, _keep_evidence(arguments.state, outcome))
            if not arguments.follow or code not in _PASSING:
                return code
            await asyncio.sleep(arguments.interval)


def exit_code(outcome: "Outcome") -> int:
    """Return the code of the gravest finding, 0 if there is none."""
    codes = [finding.exit_code for finding in outcome.findings]
    graded = [code for code in _GRAVITY if code in codes]
    return (graded or codes or [0])[0]


def _demands(arguments: argparse.Namespace) -> "Demands":
    from kapsel_cli.auditing import views
    from kapsel_cli.auditing.run import Demands
    from kapsel_verifier import keys, levels, policy
    from kapsel_verifier.errors import VerificationError

    try:
        pinned = None if arguments.policy is None else policy.parse(_read(arguments.policy))
        trusted = [keys.parse_key(text) for text in arguments.public_key]
        if arguments.keys is not None:
            trusted += keys.parse_key_set(_read(arguments.keys))
        checkpoints = [(str(path), views.read_note(_read(path))) for path in arguments.checkpoint]
    except VerificationError as error:
        raise CliError(error.sentence().removesuffix("."), "Correct the file or the key that was given") from error
    trusted += levels.trusted_by(pinned)
    if not trusted:
        raise CliError(
            "no key is trusted, and the log's own word for its key is worth nothing",
            "Give the key with --public-key, --keys or --policy",
        )
    witnesses = [(url, url) for url in arguments.witness]
    if pinned is not None:
        witnesses += [(one.name, one.url) for one in pinned.witnesses if one.url is not None]
    return Demands(
        trusted=tuple(trusted),
        policy=pinned,
        witnesses=tuple(witnesses),
        checkpoints=tuple(checkpoints),
        max_age_ms=int(arguments.max_age * 1000),
        continues=None if arguments.continues is None else _audited(arguments.continues),
    )


def _audited(path: Path) -> "Audited":
    """Return the head up to which another log was audited."""
    from kapsel_cli.auditing.continued import Audited
    from kapsel_cli.auditing.state import load

    note = load(path).verified
    if note is None:
        raise CliError(f"{path} knows of no audit that came to its end", "Name the state file of one with --continues")
    return Audited(file=str(path), note=note)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1_048_577)
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}", "Name another file") from error


def _bar(arguments: argparse.Namespace) -> AbstractContextManager[Any]:
    """Return what shows how far a walk has come, on a terminal; elsewhere nothing."""
    if arguments.json or not sys.stderr.isatty():
        return nullcontext(lambda done, size: None)  # noqa: ARG005
    return _Bar()


class _Bar:
    """A bar of leaves, with how long it will take."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("leaves"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("leaves", total=None)
        self._progress.start()
        return lambda done, size: self._progress.update(self._task, completed=done, total=size)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _keep_evidence(state: Path, outcome: "Outcome") -> list[str]:
    """Write both heads of every contradiction beside the state file, and return the names of the files."""
    from kapsel_cli.auditing.errors import SplitViewError

    written = []
    for finding in outcome.findings:
        if not isinstance(finding, SplitViewError):
            continue
        name = sha256("".join(finding.heads).encode()).hexdigest()[:16]
        for number, head in enumerate(finding.heads, 1):
            path = state.with_name(f"{state.stem}-evidence-{name}-{number}.txt")
            try:
                path.write_text(head, encoding="utf-8")
            except OSError as error:
                raise CliError(
                    f"the evidence {path} cannot be written: {error.strerror}", "Make room for it"
                ) from error
            written.append(str(path))
    return written


def _print(arguments: argparse.Namespace, outcome: "Outcome", evidence: list[str]) -> None:
    if arguments.json:
        print(json.dumps(to_json(outcome, evidence)), flush=True)
        return
    for line in lines(outcome):
        print(line, flush=True)
    for finding in outcome.findings:
        print(f"! {finding.sentence()}", file=sys.stderr)
    for path in evidence:
        print(f"! evidence: {path}", file=sys.stderr)


def to_json(outcome: "Outcome", evidence: list[str]) -> dict[str, Any]:
    """Return an outcome for programs."""
    return {
        "holds": not outcome.findings,
        "exit_code": exit_code(outcome),
        "origin": outcome.origin,
        "tree_size": outcome.tree_size,
        "root_hash": outcome.root.hex(),
        "head_timestamp_ms": outcome.head_ms,
        "leaves_read": outcome.read,
        "leaves_erased": outcome.erased,
        "endpoints": outcome.endpoints,
        "witnessed_at": outcome.witnessed_at,
        "agreed": [{"holder": holder, "tree_size": size} for holder, size in outcome.agreed],
        "statements": outcome.statements,
        "findings": [
            {"class": type(one).__name__.removesuffix("Error"), "exit_code": one.exit_code, "message": str(one)}
            for one in outcome.findings
        ],
        "evidence": evidence,
    }


def lines(outcome: "Outcome") -> list[str]:
    """Return an outcome for people: what was found to hold."""
    if not outcome.origin:
        return []
    dated, erased = _date(outcome.head_ms // 1000), f"{outcome.erased} of all were erased when they were read"
    found = [
        f"{outcome.origin}: {outcome.tree_size} leaves, signed {dated}, root {outcome.root.hex()}",
        f"  read {outcome.read} leaves, of {outcome.endpoints} endpoints; {erased}",
        *(f"  {statement}" for statement in outcome.statements),
        *(f"  {holder} holds the same log, with {size} leaves" for holder, size in outcome.agreed),
    ]
    if outcome.witnessed_at is not None:
        found.append(f"  cosigned by a quorum of the policy, by {_date(outcome.witnessed_at)}")
    return [*found, "  all of it holds"] if not outcome.findings else found


def _date(seconds: int) -> str:
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"  # a clock that is not ours may say anything

"""The directory that holds everything of one `kapsel up`: the database, its logs, the sealing key, and who is at work.

Called by `up`. The other commands read up.json alone, to find the console.
"""

import fcntl
import json
import os
import secrets
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from kapsel_cli.errors import CliError, DataInUseError

LOCK_NAME: Final = "lock"
STATE_NAME: Final = "up.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where a running `kapsel up` can be reached; the content of up.json."""

    pid: int
    ingest: str  # http://host:port
    console: str
    metrics: dict[str, str]  # process name -> URL


class DataDir:
    """A data directory, held by this process alone from `take` to `give_back`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.sealing_key = self.path / "sealing.key"
        # What was signed last is remembered outside: a restored backup of the data must not bring its own memory along.
        self._fence = self.path.with_name(f"{self.path.name}.fence")
        self._lock = -1

    def take(self) -> None:
        """Create what is missing and lock it; raise DataInUseError while another instance runs on it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self._fence.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CliError(
                f"the data directory {self.path} cannot be used: {error.strerror}", "Name another one with --data-dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._lock, 32, 0).decode().strip()
            os.close(self._lock)
            raise DataInUseError(
                f"another kapsel up (pid {pid or 'unknown'}) runs on {self.path}",
                f"Stop it with `kill {pid or 'PID'}`, or give this one its own --data-dir and --port",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        # What one that was killed left behind; until this one can be reached nobody is to be sent there.
        (self.path / STATE_NAME).unlink(missing_ok=True)

    def give_back(self) -> None:
        """Let the next instance have it."""
        (self.path / STATE_NAME).unlink(missing_ok=True)
        os.close(self._lock)

    def ensure_sealing_key(self) -> None:
        """Create the key that seals secrets in the database, once; without it they could never be opened again."""
        if self.sealing_key.exists():
            return
        write_whole(self.sealing_key, f"{secrets.token_hex(32)}\n")

    def fence_file(self, origin: str) -> Path:
        """Return where the attestor remembers the last signed head of a log: each log has a file of its own."""
        return self._fence / f"{urllib.parse.quote(origin, safe='')}.json"

    def write_state(self, running: Running) -> None:
        """Say where this instance can be reached."""
        write_whole(self.path / STATE_NAME, json.dumps(asdict(running), indent=2) + "\n")


def read_state(path: Path) -> Running | None:
    """Return where the instance on a data directory can be reached, or None if none runs."""
    try:
        return Running(**json.loads((path / STATE_NAME).read_text()))
    except FileNotFoundError:
        return None


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds a data directory, reachable yet or not; None if nobody does."""
    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        # Asked first: to try a lock that is free could turn away somebody who takes it at this moment.
        if not pid.isdecimal() or not lives(int(pid)):
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(pid)
    finally:
        os.close(descriptor)
    return None


def lives(pid: int) -> bool:
    """Whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner reads, durably and at once: a crash leaves the old content or the new."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

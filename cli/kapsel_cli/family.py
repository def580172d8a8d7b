"""The child processes of one supervisor as a family that never outlives it unnoticed.

Called by `up` and by EmbeddedPostgres. A supervisor can be killed with no chance to stop its children, and what Linux
offers against that (PR_SET_PDEATHSIG) macOS does not have. So, the same on both:

- All children share one process group. Its leader is a guard, a shell that reads a pipe only the supervisor holds: at
  the end of the pipe it interrupts the group, and kills it a little later.
- All children inherit one locked file. The kernel keeps that lock until the last of them is gone, so the next
  supervisor knows whether any is left, whatever became of the guard. While one is left its group id cannot be given to
  another process, so the group can be ended without hitting a stranger.

Ctrl-C in a terminal reaches the supervisor alone, which then stops its children in order.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, TypedDict

from kapsel_cli.errors import DataInUseError

LOCK_NAME: Final = "family.lock"
INTERRUPTED_FOR: Final = 2.0  # seconds that left-over processes get to stop by themselves; all of them survive a kill
KILLED_FOR: Final = 2.0  # seconds in which the kernel must have cleared killed processes away

# SIGINT is a fast shutdown for Postgres and a drain for the components; the guard itself ignores it.
GUARD: Final = f"trap '' INT TERM HUP QUIT; read -r _; kill -INT 0; sleep {INTERRUPTED_FOR:g}; kill -KILL 0"


class SpawnOptions(TypedDict):
    """What subprocess.Popen needs so that the child is born into the family."""

    process_group: int
    pass_fds: tuple[int, ...]


class Family:
    """The process group of one supervisor: `found` it before the first child, `dissolve` it after the last."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._lock = -1
        self._guard: subprocess.Popen[bytes] | None = None

    def found(self) -> None:
        """End what an earlier family left behind and start the guard of this one."""
        self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._end_remains()
            guard = subprocess.Popen(["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE, process_group=0, env={})
        except BaseException:
            os.close(self._lock)
            raise
        self._guard = guard
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{guard.pid}\n".encode(), 0)

    def spawn_options(self) -> SpawnOptions:
        """Return the options that make a new process one of the family."""
        return {"process_group": self._recorded_group(), "pass_fds": (self._lock,)}

    def dissolve(self) -> None:
        """Kill the guard, and with it any child that is still there: none outlives its family."""
        if self._guard is None:
            return
        self._signal_remains(signal.SIGKILL)
        self._guard.communicate(timeout=KILLED_FOR)
        self._guard = None
        os.close(self._lock)

    def _end_remains(self) -> None:
        if self._locked_within(0):
            return
        for ending, seconds in ((signal.SIGINT, INTERRUPTED_FOR), (signal.SIGKILL, KILLED_FOR)):
            self._signal_remains(ending)
            if self._locked_within(seconds):
                return
        raise DataInUseError(
            f"processes of an earlier run (process group {self._recorded_group()}) still use {self._path.parent}",
            f"End them with `kill -9 -- -{self._recorded_group()}` and start again",
        )

    def _signal_remains(self, ending: signal.Signals) -> None:
        group = self._recorded_group()
        if group > 1:
            # macOS answers with a lack of permission when only zombies are left of the group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, ending)

    def _recorded_group(self) -> int:
        recorded = os.pread(self._lock, 32, 0).strip()
        return int(recorded) if recorded.isdigit() else 0

    def _locked_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.01)
            else:
                return True

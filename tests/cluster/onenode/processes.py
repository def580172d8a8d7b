"""The processes of one cluster: started with a log and a record of their id, stopped by that record.

Used by the control plane and the node. A record outlives the command that started the processes, so that a later
command can stop them; it holds the time of birth as well, lest a stranger who got the same id is hit.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from onenode.binaries import PATH, program
from onenode.errors import ClusterError

STOP_SECONDS: Final = 10.0


class Processes:
    """All processes whose logs and records are in one state directory."""

    def __init__(self, state: Path, *, bound: bool) -> None:
        self._state = state
        self._bound = bound  # whether the kernel kills them when their starter dies
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._held: dict[str, tuple[int, ...]] = {}
        self.logs = state / "logs"
        self._records = state / "pids"

    def hold(self, descriptor: int, *, by: str) -> None:
        """Let the process `by` keep a file open, and with it a lock, for as long as it lives."""
        self._held[by] = (descriptor,)

    def spawn(self, name: str, *arguments: object) -> None:
        """Start the program `name`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._records.mkdir(parents=True, exist_ok=True)
        bond = ["setpriv", "--pdeathsig", "KILL"] if self._bound else []
        command = [*bond, str(program(name)), *map(str, arguments)]
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self._state,
                env=os.environ | {"PATH": PATH},
                pass_fds=self._held.get(name, ()),
            )
        if self._bound:
            _await_program(child)
        self._children[name] = child
        (self._records / name).write_text(f"{child.pid} {_birth(child.pid)}")

    def names(self) -> list[str]:
        """Return which processes were started, in the order of the alphabet."""
        return sorted(path.name for path in self._records.glob("*"))

    def alive(self, name: str) -> bool:
        """Return whether the process of this record lives."""
        return self._pid(name) is not None

    def stop(self, name: str, ending: signal.Signals = signal.SIGTERM) -> None:
        """Stop one process and wait until it is gone; what does not stop in time is killed."""
        pid = self._pid(name)
        if pid is not None:
            descriptor = os.pidfd_open(pid)
            for last_word in (ending, signal.SIGKILL):
                signal.pidfd_send_signal(descriptor, last_word)
                if select.select([descriptor], [], [], STOP_SECONDS)[0]:
                    break
            os.close(descriptor)
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(STOP_SECONDS)
        (self._records / name).unlink(missing_ok=True)

    def wait(self, name: str, ready: Callable[[], object], seconds: float = 240) -> None:
        """Wait until `ready` returns something true; an OSError or a failed command means not yet."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if ready():
                    return
            except (OSError, subprocess.CalledProcessError):
                pass
            if not self.alive(name):
                raise ClusterError(f"{name} ended at once: {self._last_line(name)} (see {self.logs})")
            time.sleep(0.05)
        raise ClusterError(f"{name} was not ready in {seconds:g} s: {self._last_line(name)} (see {self.logs})")

    def _last_line(self, name: str) -> str:
        lines = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _pid(self, name: str) -> int | None:
        try:
            pid, birth = (self._records / name).read_text().split()
            return int(pid) if _birth(int(pid)) == birth else None
        except (OSError, ValueError):
            return None


def _await_program(child: subprocess.Popen[bytes]) -> None:
    """Wait until setpriv has given way to the program: only then is the child bound to us."""
    comm = Path(f"/proc/{child.pid}/comm")
    deadline = time.monotonic() + STOP_SECONDS
    while child.poll() is None and comm.read_text() == "setpriv\n" and time.monotonic() < deadline:
        time.sleep(0.001)


def _birth(pid: int) -> str:
    """Return when a process was born, or nothing if it is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]

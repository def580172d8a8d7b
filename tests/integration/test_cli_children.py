"""Children that crash, hang, or never get ready, and the family that outlives none of them."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kapsel_cli.child_logs import ChildLog
from kapsel_cli.children import Child, ChildPlan
from kapsel_cli.errors import ChildError, PostgresError
from kapsel_cli.family import Family

READY_FILE = "ready"


@dataclass
class Started:
    """A running child, and what was said of it."""

    child: Child
    said: list[str]
    directory: Path
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def until(self, what: str) -> None:
        async with asyncio.timeout(240):
            while not any(what in line for line in self.said):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def started(tmp_path: Path, program: str, **changes: object) -> AsyncIterator[Started]:
    """Keep a Python program running that is ready once it has written a file."""
    family = Family(tmp_path)
    family.found()
    (tmp_path / "program.py").write_text(textwrap.dedent(program))

    async def command() -> list[str]:
        (tmp_path / READY_FILE).unlink(missing_ok=True)
        return [sys.executable, str(tmp_path / "program.py")]

    async def is_ready(_: int) -> bool:
        return (tmp_path / READY_FILE).exists()

    plan = ChildPlan(
        **{
            "name": "child",
            "command": command,
            "options": lambda: {**family.spawn_options(), "cwd": tmp_path},
            "is_ready": is_ready,
            **changes,
        }  # type: ignore[arg-type]
    )
    said: list[str] = []
    log = ChildLog(tmp_path / "child.log", said.append)
    child = Child(plan, log, said.append)
    running = asyncio.create_task(child.run())
    try:
        yield Started(child, said, tmp_path)
    finally:
        await child.stop()
        await running
        log.close()
        family.dissolve()


WORKS = """
import pathlib, time
pathlib.Path("ready").touch()
time.sleep(600)
"""


async def test_a_child_waits_for_what_it_is_told_and_hears_it_again_in_its_next_life(tmp_path: Path) -> None:
    known = asyncio.Event()

    async def told() -> bytes:
        await known.wait()
        return b"where it is"

    program = """
    import pathlib, time
    pathlib.Path("began").touch()
    pathlib.Path("heard").write_text(pathlib.Path("/dev/stdin").read_text())
    pathlib.Path("ready").touch()
    time.sleep(600)
    """
    async with started(tmp_path, program, told=told) as child, asyncio.timeout(240):
        while not (tmp_path / "began").exists():
            await asyncio.sleep(0.01)
        assert not (tmp_path / "heard").exists()
        known.set()
        await child.child.wait_ready()
        assert (tmp_path / "heard").read_text() == "where it is"
        (tmp_path / "heard").unlink()
        child.child.restart()
        await child.until("is back")
        assert (tmp_path / "heard").read_text() == "where it is"


async def test_a_child_that_waits_to_be_told_can_be_stopped(tmp_path: Path) -> None:
    async def told() -> bytes:
        await asyncio.Event().wait()
        return b""

    program = """
    import pathlib
    pathlib.Path("began").touch()
    pathlib.Path("/dev/stdin").read_text()
    """
    async with started(tmp_path, program, told=told) as child, asyncio.timeout(240):
        while not (tmp_path / "began").exists():
            await asyncio.sleep(0.01)
        await child.child.stop()
        assert child.said == []


async def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    async with started(tmp_path, WORKS) as here:
        await here.child.wait_ready()
        first = here.child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await here.until("child was killed by SIGKILL; starting it again in")
        await here.until("child is back")
        assert here.child.pid not in (None, first)


async def test_what_a_child_says_last_is_the_reason_why_it_never_got_ready(tmp_path: Path) -> None:
    async with started(tmp_path, "raise SystemExit('KAPSEL_X is wrong')") as here:
        with pytest.raises(ChildError, match=r"child ended with exit code 1: KAPSEL_X is wrong\. Read .*child\.log"):
            await here.child.wait_ready()


async def test_a_child_that_hangs_while_it_starts_is_given_up(tmp_path: Path) -> None:
    async with started(tmp_path, "import time; time.sleep(600)", ready_seconds=0.5) as here:
        with pytest.raises(ChildError, match=r"was not ready within 0\.5 s"):
            await here.child.wait_ready()


async def test_nobody_waits_long_for_a_child_that_webhooks_do_not_need(tmp_path: Path) -> None:
    async with started(tmp_path, "import time; time.sleep(600)", ready_seconds=0.5, is_vital=False) as here:
        await here.child.wait_ready()
        assert "was not ready within" in here.said[0]


async def test_what_cannot_be_prepared_is_said_at_once(tmp_path: Path) -> None:
    async def command() -> list[str]:
        raise PostgresError("initdb failed: no space left", "Free some")

    async with started(tmp_path, WORKS, command=command) as here:
        with pytest.raises(PostgresError, match="no space left"):
            await here.child.wait_ready()


async def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WORKS
    async with started(tmp_path, stubborn, stop_seconds=0.3) as here:
        await here.child.wait_ready()
        pid = here.child.pid
        await here.child.stop()
        assert pid is not None
        assert not is_alive(pid)
        assert "child did not stop within 0.3 s; killing it" in here.said


async def test_a_grandchild_that_keeps_the_pipe_open_hides_no_crash(tmp_path: Path) -> None:
    program = WORKS.replace("time.sleep(600)", "import subprocess; subprocess.Popen(['/bin/sleep', '600']); exit(3)")
    async with started(tmp_path, program) as here:
        await here.until("child ended with exit code 3")


async def test_a_dissolved_family_leaves_nobody_behind(tmp_path: Path) -> None:
    program = """
    import pathlib, subprocess, time
    whole = pathlib.Path("whole")
    whole.write_text(str(subprocess.Popen(["/bin/sleep", "600"]).pid))
    whole.rename("ready")
    time.sleep(600)
    """
    async with started(tmp_path, program) as here:
        await here.child.wait_ready()
        grandchild = int((tmp_path / READY_FILE).read_text())
        assert is_alive(grandchild)
    wait_until(lambda: not is_alive(grandchild))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

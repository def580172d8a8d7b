"""The life of a process: real ones, started, signalled and read from outside."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kapsel_runtime.waiting import until

DEADLINE = 240.0  # seconds; far more than any of these needs

PROGRAM = """
import asyncio, gc, logging, os, signal, sys, threading, time, warnings
from kapsel_runtime import process
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.settings import DataPlaneSettings

def ready():
    print("ready", flush=True)

{main}

process.run("example", process.load("example", DataPlaneSettings), main)
"""

WAITS = """
async def main(stopping):
    ready()
    await stopping.wait()
    print("drained", flush=True)
"""

NEVER_DRAINS = """
async def main(stopping):
    ready()
    await asyncio.Event().wait()
"""


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "KAPSEL_DATABASE_URL": "postgresql://kapsel:hunter2@db/kapsel",
        "KAPSEL_SEALING_KEY_FILE": str(tmp_path / "keys"),
        "KAPSEL_INSTANCE": "one",
        **variables,
    }


class Child:
    """A started program, with its output in pipes."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen

    def until_ready(self) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "ready\n"

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> tuple[int, str, list[dict[str, object]]]:
        """Return exit code, output and log once the process has ended."""
        output, log = self.popen.communicate(timeout=DEADLINE)
        return self.popen.returncode, output, [json.loads(text) for text in log.splitlines()]


Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with started_in(tmp_path) as start:
        yield start


@contextmanager
def started_in(directory: Path) -> Iterator[Start]:
    children: list[subprocess.Popen[str]] = []

    def start(main: str, **variables: str) -> Child:
        program = directory / "program.py"
        program.write_text(PROGRAM.replace("{main}", main))
        popen = subprocess.Popen(
            [sys.executable, str(program)],
            env=environment(directory, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(popen)
        return Child(popen)

    yield start
    for child in children:
        child.kill()
        child.communicate()


def messages(log: list[dict[str, object]]) -> list[object]:
    return [line["message"] for line in log]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_zero(start: Start, number: signal.Signals) -> None:
    child = start(WAITS)
    child.until_ready()
    child.signal(number)
    code, output, log = child.end()
    assert (code, output) == (0, "drained\n")
    assert messages(log) == ["started", "stopping", "stopped"]
    assert log[1]["signal"] == number.name
    assert all(line["component"] == "example" and line["instance"] == "one" for line in log)


def test_a_main_that_returns_by_itself_ends_with_zero(start: Start) -> None:
    code, _, log = start("async def main(stopping): pass").end()
    assert code == 0
    assert messages(log) == ["started", "stopped"]


def test_the_loop_is_uvloops(start: Start) -> None:
    _, output, _ = start("async def main(stopping): print(type(asyncio.get_running_loop()).__module__)").end()
    assert output == "uvloop\n"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(start: Start, second: signal.Signals) -> None:
    main = """
async def main(stopping):
    ready()
    await stopping.wait()
    ready()
    await asyncio.Event().wait()
"""
    child = start(main)
    child.until_ready()
    child.signal(signal.SIGTERM)
    child.until_ready()
    child.signal(second)
    code, _, log = child.end()
    assert code == 1
    assert log[-1]["message"] == f"{second.name} while stopping: ending at once"


def test_what_has_not_drained_by_the_deadline_is_ended(start: Start) -> None:
    child = start(NEVER_DRAINS, KAPSEL_DRAIN_TIMEOUT="0.3")
    child.until_ready()
    before = time.monotonic()
    child.signal(signal.SIGTERM)
    code, _, log = child.end()
    assert code == 1
    assert time.monotonic() - before >= 0.3
    assert log[-1]["message"] == "not drained after 0.3 s: ending at once"


@pytest.mark.parametrize("stuck", ["time.sleep(3600)", "while True: pass", "threading.Event().wait()"])
def test_the_deadline_holds_also_when_the_loop_is_stuck(start: Start, stuck: str) -> None:
    child = start(f"async def main(stopping):\n    ready()\n    {stuck}", KAPSEL_DRAIN_TIMEOUT="0.3")
    child.until_ready()
    child.signal(signal.SIGTERM)
    assert child.end()[0] == 1


def test_a_task_left_behind_that_does_not_end_is_ended_by_the_deadline(start: Start) -> None:
    main = """
tasks = []
async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ready()

async def main(stopping):
    tasks.append(asyncio.create_task(stubborn()))
    await asyncio.sleep(0)
"""
    child = start(main, KAPSEL_DRAIN_TIMEOUT="0.3")
    child.until_ready()
    assert child.end()[0] == 1


@pytest.mark.parametrize("level", ["info", "error"])
def test_a_reader_of_the_log_that_hangs_does_not_keep_the_process_alive(start: Start, level: str) -> None:
    main = """
async def main(stopping):
    os.set_blocking(2, False)
    try:
        while True:
            os.write(2, b"x")
    except BlockingIOError:
        os.set_blocking(2, True)
    ready()
    await asyncio.Event().wait()
"""
    child = start(main, KAPSEL_DRAIN_TIMEOUT="0.1", KAPSEL_LOG_LEVEL=level)
    child.until_ready()
    child.signal(signal.SIGTERM)
    assert child.popen.wait(DEADLINE) in (1, -signal.SIGALRM)


def test_a_failed_task_is_one_log_line_and_exit_code_one(start: Start) -> None:
    main = """
async def fails():
    raise ValueError("no luck with postgresql://kapsel:hunter2@db/kapsel")

async def main(stopping):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stopping.wait())
        tasks.create_task(fails())
"""
    code, _, log = start(main).end()
    assert code == 1
    assert messages(log) == ["started", "failed"]
    assert log[-1]["level"] == "critical"
    assert log[-1]["error"] == "ValueError: no luck with postgresql://kapsel:***@db/kapsel"
    assert "in fails" in str(log[-1]["stack"])
    assert "hunter2" not in str(log)


def test_a_main_that_is_cancelled_has_failed(start: Start) -> None:
    code, _, log = start("async def main(stopping): asyncio.current_task().cancel(); await asyncio.sleep(0)").end()
    assert (code, log[-1]["error"]) == (1, "CancelledError")


def test_warnings_threads_and_finalisers_that_fail_are_log_lines(start: Start) -> None:
    main = """
class Broken:
    def __del__(self):
        raise RuntimeError("in a finaliser")

def fails():
    raise RuntimeError("in a thread")

async def main(stopping):
    warnings.warn("careful")
    Broken()
    gc.collect()
    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
"""
    code, _, log = start(main).end()
    assert code == 0
    assert "careful" in str(log[1]["message"])
    assert [line.get("error") for line in log[2:4]] == [
        "RuntimeError: in a finaliser",
        "RuntimeError: in a thread",
    ]


def test_the_level_set_is_the_least_that_is_logged(start: Start) -> None:
    main = """
async def main(stopping):
    logging.getLogger("a").info("low")
    logging.getLogger("a").warning("high")
"""
    assert messages(start(main, KAPSEL_LOG_LEVEL="warning").end()[2]) == ["high"]


def refused(child: Child) -> str:
    output, errors = child.popen.communicate(timeout=DEADLINE)
    assert (child.popen.returncode, output) == (2, "")
    return errors.splitlines()[-1]


def test_settings_that_cannot_be_used_are_one_sentence_and_exit_code_two(start: Start) -> None:
    child = start(WAITS, KAPSEL_HEALTH_PROT="1")
    assert refused(child) == (
        "kapsel-example: KAPSEL_HEALTH_PROT is not a setting of this process: did you mean KAPSEL_HEALTH_PORT?"
    )


def test_a_setting_that_turns_out_wrong_later_ends_the_same_way(start: Start) -> None:
    child = start('async def main(stopping): raise SettingsError("The file of the keys holds no key.")')
    assert refused(child) == "kapsel-example: The file of the keys holds no key."


async def test_until_returns_as_soon_as_one_event_is_set() -> None:
    stopping, hint = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(until(stopping, hint, timeout=DEADLINE))
    await asyncio.sleep(0)
    hint.set()
    assert await waiting


async def test_until_returns_false_when_time_is_up() -> None:
    assert not await until(asyncio.Event(), asyncio.Event(), timeout=0.01)


async def test_until_leaves_no_task_behind_when_it_is_cancelled() -> None:
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(until(asyncio.Event(), asyncio.Event(), timeout=DEADLINE))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before

"""How a process starts, is told to stop, drains and ends.

Each component's `__main__` calls `load` and `run`. The component's own main gets `stopping`, owns all its tasks in a
task group, and returns when it has drained; what to finish first is left to it.

Exit codes: 0 drained or done, 1 failed or forced to end, 2 settings that cannot be used.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Final, NoReturn, TypeVar

import uvloop

from kapsel_runtime import logs, settings
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.settings import ProcessSettings

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
YOUNG_OBJECTS: Final = 20_000  # made and not freed before the collector looks for cycles: a batch or two, not a request
_LAST_WORDS: Final = 1.0  # seconds that the last log line may take when nobody reads stderr

Settings = TypeVar("Settings", bound=ProcessSettings)
Main = Callable[[asyncio.Event], Coroutine[object, object, None]]

logger = logging.getLogger(__name__)


def load(component: str, model: type[Settings]) -> Settings:
    """Return the settings in the environment, or say in one sentence what is wrong with them and exit with 2."""
    try:
        return settings.load(model, os.environ)
    except SettingsError as error:
        _refuse(component, error)


def run(component: str, settings: ProcessSettings, main: Main) -> NoReturn:
    """Run `main` on uvloop until it returns, then exit; SIGTERM and SIGINT set the event that it is given.

    A second signal, or `drain_timeout` seconds after the first, ends the process at once with exit code 1.
    """
    logs.configure(component, settings.instance, settings.log_level)
    stopping = asyncio.Event()
    try:
        with runner() as running:
            shutdown = _Shutdown(running.get_loop(), stopping, settings.drain_timeout)
            logger.info("started", extra={"pid": os.getpid()})
            try:
                running.run(_awaited(main, stopping))
            finally:
                shutdown.begin()  # what main left behind must end in time too
    except SettingsError as error:
        _refuse(component, error)
    except SystemExit:
        raise
    except BaseException as error:
        logger.critical("failed", exc_info=error)
        sys.exit(EXIT_FAILED)
    logger.info("stopped")
    sys.exit(0)


def runner() -> asyncio.Runner:
    """Return what a process of ours runs on, once it has imported all it needs: uvloop, and a collector that waits."""
    gc.freeze()  # what the imports made stays anyway: no collection need look at it again
    gc.set_threshold(YOUNG_OBJECTS)
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


class _Shutdown:
    """Turns signals into `stopping`, and makes sure that the process ends in time.

    The handlers and the timer are the interpreter's and not the loop's, so they work also when the loop is stuck.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event, timeout: float) -> None:
        self._loop = loop
        self._stopping = stopping
        self._timeout = timeout
        self._begun = False
        signal.signal(signal.SIGALRM, self._on_deadline)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def begin(self) -> None:
        """Start the deadline; from now on a signal ends the process."""
        if not self._begun:
            self._begun = True
            signal.setitimer(signal.ITIMER_REAL, self._timeout)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._begun:
            _end_now(f"{name} while stopping: ending at once")
        self.begin()
        self._loop.call_soon_threadsafe(self._stop, name)

    def _stop(self, name: str) -> None:
        logger.info("stopping", extra={"signal": name, "deadline_seconds": self._timeout})
        self._stopping.set()

    def _on_deadline(self, _number: int, _: FrameType | None) -> None:
        _end_now(f"not drained after {self._timeout:g} s: ending at once")


def _end_now(reason: str) -> NoReturn:
    # Writing the line can block for ever on a full pipe; the alarm's default action then ends the process.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _LAST_WORDS)
    logger.error(reason)
    os._exit(EXIT_FAILED)


async def _awaited(main: Main, stopping: asyncio.Event) -> None:
    await main(stopping)


def _refuse(component: str, error: SettingsError) -> NoReturn:
    sys.stderr.write(f"kapsel-{component}: {error}\n")
    sys.exit(EXIT_SETTINGS)

"""Child processes that are kept running: what ends without being asked is started again, aloud.

Called by `up`, with Postgres and every component as a `ChildPlan`.
"""

import asyncio
import contextlib
import os
import random
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any, Final

from kapsel_cli.child_logs import ChildLog
from kapsel_cli.errors import ChildError, CliError
from kapsel_runtime.backoff import delays

FIRST_DELAY: Final = 0.1  # most crashes are over at once, and webhooks wait
LONGEST_DELAY: Final = 10.0
HEALTHY_AFTER: Final = 30.0  # who has run for so long starts again without having to wait
KILLED_SECONDS: Final = 5.0
READY_POLL: Final = 0.02
LAST_WORDS_SECONDS: Final = 0.5  # a grandchild may keep the pipe open; nobody waits for it longer than this
READ_BYTES: Final = 65_536
FALSE_STARTS: Final = 3  # who ends so often before it was ever ready will not become ready by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """How one child is started, known to be ready, and stopped."""

    name: str
    command: Callable[[], Awaitable[list[str]]]  # asked before each start: prepares what the child needs
    options: Callable[[], Mapping[str, Any]]  # of subprocess.Popen
    is_ready: Callable[[int], Awaitable[bool]]  # given the process id
    told: Callable[[], Awaitable[bytes]] | None = None  # what its standard input says, and until then it may wait
    stop_signal: signal.Signals = signal.SIGTERM
    ready_seconds: float = 30.0
    is_vital: bool = True  # without the others webhooks flow all the same, so nobody waits for them for long
    stop_seconds: float = 15.0


class Child:
    """One child over all its lives."""

    def __init__(self, plan: ChildPlan, log: ChildLog, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.log = log
        self._say = say
        self._starts = 0
        self._was_ready = False
        self._settled = asyncio.Event()  # ready for the first time, or given up
        self._trouble: CliError | None = None
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Return the process id, or None between two lives."""
        return self._process.pid if self._process is not None else None

    async def run(self) -> None:
        """Keep the child running until `stop`."""
        waits = self._waits()
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            ending = await self._live()
            if self._stopping.is_set() or self._is_hopeless(ending):
                return
            if loop.time() - began > HEALTHY_AFTER:
                waits = self._waits()
            wait = next(waits)
            self._say(f"{self.plan.name} {ending}; starting it again in {wait:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    async def wait_ready(self) -> None:
        """Wait until the child is ready for the first time; raise ChildError if it will not be, or takes too long."""
        try:
            await asyncio.wait_for(self._settled.wait(), self.plan.ready_seconds)
        except TimeoutError:
            trouble = self._not_ready(f"was not ready within {self.plan.ready_seconds:g} s")
            if self.plan.is_vital:
                raise trouble from None
            self._say(str(trouble))
        if self._trouble is not None:
            raise self._trouble

    async def stop(self) -> None:
        """Ask the child to stop, and kill it when it takes too long."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        for ending, seconds in ((self.plan.stop_signal, self.plan.stop_seconds), (signal.SIGKILL, KILLED_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(ending)
            try:
                await asyncio.wait_for(process.wait(), seconds)
                return
            except TimeoutError:
                self._say(f"{self.plan.name} did not stop within {seconds:g} s; killing it")

    def restart(self) -> None:
        """Ask the child to stop, so that it is started anew."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self.plan.stop_signal)

    def kill(self) -> None:
        """Kill the child at once, for good."""
        self._stopping.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _live(self) -> str:
        """Run the child once and return how it ended."""
        if self.plan.told is None:
            return await self._live_with(DEVNULL, None)
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
            telling = asyncio.create_task(_tell(self.plan.told, pipe))
            try:
                return await self._live_with(stdin.fileno(), telling)
            finally:
                telling.cancel()

    async def _live_with(self, stdin: int, telling: asyncio.Task[None] | None) -> str:
        self._starts += 1
        reading, writing = os.pipe()
        output = asyncio.create_task(self._pump(reading))
        try:
            command = await self.plan.command()
            process = await asyncio.create_subprocess_exec(
                *command, stdin=stdin, stdout=writing, stderr=writing, **self.plan.options()
            )
        except CliError as error:
            self._trouble = error
            return f"could not be started: {error.problem}"
        except OSError as error:
            return f"could not be started: {error.strerror}"
        finally:
            os.close(writing)
        self._process = process
        if self._stopping.is_set():  # asked to stop while it was being started
            self.kill()
        readiness = asyncio.create_task(self._watch_readiness(process, telling))
        try:
            ending = _how_it_ended(await process.wait())
            await asyncio.wait([output], timeout=LAST_WORDS_SECONDS)
            return ending
        finally:
            readiness.cancel()
            output.cancel()
            self._process = None
            if process.returncode is None:  # cancelled: nobody will look after it any more
                process.kill()

    async def _pump(self, reading: int) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        pipe = os.fdopen(reading, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        try:
            while chunk := await reader.read(READ_BYTES):
                self.log.feed(chunk)
        finally:
            transport.close()
            self.log.end()

    async def _watch_readiness(self, process: Process, telling: asyncio.Task[None] | None) -> None:
        if telling is not None:
            await asyncio.wait([telling])  # not ready before, and to ask it costs a processor that has more to do
        while not await self.plan.is_ready(process.pid):  # noqa: ASYNC110 - another process: none here sets an event
            await asyncio.sleep(READY_POLL)
        if self._was_ready:
            self._say(f"{self.plan.name} is back")
        self._was_ready = True
        self._trouble = None
        self._settled.set()

    def _is_hopeless(self, ending: str) -> bool:
        """Whether to give up: only at the very start, where a person waits for an answer."""
        if self._was_ready or (self._trouble is None and self._starts < FALSE_STARTS):
            return False
        self._trouble = self._trouble or self._not_ready(ending)
        self._settled.set()
        return True

    def _not_ready(self, what: str) -> ChildError:
        reason = f": {self.log.last_complaint}" if self.log.last_complaint else ""
        return ChildError(f"{self.plan.name} {what}{reason}", f"Read {self.log.path}")

    def _waits(self) -> Iterator[float]:
        return delays(FIRST_DELAY, LONGEST_DELAY, random.Random())  # noqa: S311 - jitter, not a secret


async def _tell(told: Callable[[], Awaitable[bytes]], pipe: FileIO) -> None:
    """Write what a child is told, and the end: no more than a pipe takes at once."""
    with pipe:
        pipe.write(await told())


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"

"""An operator that dies at every await: run as a program, it lives again and again until nothing new kills it.

Each life is a process of its own, forked from one that has the imports behind it, and ends by SIGKILL the first time a
reconcile waits in a place where none has died before. A place is the chain of lines of the operator's code that wait
for each other, so one line that is reached in two ways is two places. The life that finds no new place goes on as an
operator does, and its program with it. Places are appended to the file that is the one argument.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, Final

import kapsel_operator.__main__ as operator
from kapsel_operator.settings import OperatorSettings
from kapsel_runtime import process

CODE: Final = Path(operator.__file__).parent
# What begins a reconcile, or a part of one that has a task of its own; the rest of the tasks reconcile nothing.
BEGINNINGS: Final = frozenset({"reconcile.py", "apply.py", "secret_reader.py"})


def _place(waiting: Any) -> tuple[str, ...]:
    """Return where a coroutine waits: the lines of the operator, outermost first."""
    lines = []
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None)
        if frame is None:
            break
        path = Path(frame.f_code.co_filename)
        if path.parent == CODE:
            lines.append(f"{path.name}:{frame.f_lineno}")
        waiting = waiting.cr_await
    return tuple(lines)


class Mortal:
    """The awaitable that a task runs instead of its coroutine, and the places that have killed."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], places: Path, known: set[str]) -> None:
        self._coroutine = coroutine
        self._places = places
        self._known = known

    def __await__(self) -> Generator[Any, Any, Any]:
        """Pass everything through, and die where nobody has died."""
        inner = self._coroutine.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited = inner.send(value) if error is None else inner.throw(error)
            except StopIteration as end:
                return end.value
            self._perhaps_die()
            value = error = None
            try:
                value = yield waited
            except BaseException as thrown:  # noqa: BLE001 - a cancellation is the coroutine's to heed, as all else
                error = thrown

    def _perhaps_die(self) -> None:
        lines = [line for line in _place(self._coroutine) if not line.startswith("workqueue.py")]
        if not lines or lines[0].partition(":")[0] not in BEGINNINGS:
            return
        place = " ".join(lines)
        if place not in self._known:
            with self._places.open("a") as file:
                file.write(f"{place}\n")
            os.kill(os.getpid(), signal.SIGKILL)


async def _until_awaited(mortal: Mortal) -> object:
    return await mortal


def _live(places: Path, life: int) -> None:
    """Be one operator, with a Lease of its own: nobody has to wait until that of a dead one has run out."""
    os.environ["KAPSEL_OPERATOR_LEASE"] = f"life-{life}"
    settings = process.load("operator", OperatorSettings)
    known = set(places.read_text().splitlines())

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if asyncio.iscoroutine(coroutine):
            coroutine = _until_awaited(Mortal(coroutine, places, known))
        return asyncio.Task(coroutine, loop=loop, **options)

    async def serve(stopping: asyncio.Event) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await operator.serve(settings, stopping)

    process.run("operator", settings, serve)


def main() -> int:
    """Live until a life ends by itself; return its exit code."""
    sys.setrecursionlimit(operator.DEEPEST)
    places, life, child = Path(sys.argv[1]), 0, 0
    places.touch()
    told: list[int] = []

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        if child:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    code = -signal.SIGKILL
    while code == -signal.SIGKILL and not told:
        life += 1
        child = os.fork()
        if child == 0:
            _live(places, life)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code


if __name__ == "__main__":
    sys.exit(main())

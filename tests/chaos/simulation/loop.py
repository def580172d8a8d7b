"""The event loop of a run, in which time passes only when nothing else can happen, and processes that can be killed.

Everything lives in this one loop: the components, whoever calls them and whom they call, and the proxy before Postgres.
Sockets between them are socket pairs, which hold what was written the moment it was. Only Postgres is outside, and the
proxy has its answer before anything else goes on. So the loop knows when nothing is on its way: no callback is ready
and no socket readable. Then, and only then, it moves the clock to the next timer.

A life is one process of a component: the callbacks, tasks, sockets and timers that were made in its context. Killed, it
runs no further line: no `finally`, no goodbye; its sockets are closed as the kernel would close them.
"""

import asyncio
import contextvars
import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from simulation.clock import LIFE, Clock

TURNS = 3_000_000  # of the loop, after which a run goes round without end
TURN = 1e-8  # seconds that a turn takes, or whoever waits for less than a clock can tell would wait for ever
TICK = 1e-6  # seconds that every jump is longer than its timer, so that whoever waited finds that its time has come


class StuckError(Exception):
    """Nothing can ever happen any more."""


class Life:
    """One process of a component."""

    def __init__(self, loop: "Loop", name: str, component: str, clock_error: float) -> None:
        self.name = name
        self.component = component
        self.clock_error = clock_error  # seconds that its machine's clock is ahead
        self.alive = True
        self.killed = False
        self.steps = 0
        self.dies_at: int | None = None
        self.stopping = asyncio.Event()
        self.asked: float | None = None  # when, to stop
        self.task: asyncio.Task[Any] | None = None
        self.registry: Any = None
        self.born = loop.clock.elapsed
        self.died: float | None = None
        self.on_death: list[Callable[[], None]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self._loop = loop
        self._transports: list[Any] = []

    def __repr__(self) -> str:
        return self.name

    def step(self, callback: Callable[..., object], *args: object) -> None:
        """Run one callback, unless this is where it ends."""
        if not self.alive:
            return
        self.steps += 1
        if self.dies_at is not None and self.steps >= self.dies_at:
            self.kill()
            return
        callback(*args)

    def stop(self) -> None:
        """Ask it to end."""
        self.asked = self._loop.clock.elapsed
        self.stopping.set()

    def own(self, transport: Any) -> None:
        self._transports.append(transport)

    def kill(self) -> None:
        """End at once, as by SIGKILL; what it leaves behind is kept, so that nothing of it is ever finalised."""
        if not self.alive:
            return
        self.alive, self.killed, self.died = False, True, self._loop.clock.elapsed
        for transport in self._transports:
            self._loop.sever(transport)
        for tell in self.on_death:
            tell()
        _GRAVEYARD.append(self)

    def end(self) -> None:
        """It has ended by itself."""
        self.alive, self.died = False, self._loop.clock.elapsed
        for tell in self.on_death:
            tell()


_GRAVEYARD: list[Any] = []


class _Selector(selectors.BaseSelector):
    """Moves the clock when nothing is readable."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self._order: dict[int, int] = {}  # by file descriptor, whose numbers depend on what else is open
        self._registered = 0
        self.loop: Loop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._real.register(fileobj, events, data)
        self._registered += 1
        self._order[key.fd] = self._registered
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.look()
        self.loop.clock.elapsed += TURN
        if found := self._real.select(0):
            return sorted(found, key=lambda event: self._order[event[0].fd])
        if timeout is None:
            raise StuckError("no timer is set, and nothing is under way")
        if timeout > 0:
            self.loop.clock.elapsed += max(timeout, self.loop.skip) + TICK
            self.loop.skip = 0.0
        return []


class _Future(asyncio.Future[Any]):
    """Hashed by a number: in which order a set of them is walked may not depend on where they lie in memory."""

    def __init__(self, *, loop: "Loop") -> None:
        super().__init__(loop=loop)
        self._number = loop.number()

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """The same."""

    def __init__(self, coroutine: Any, *, loop: "Loop", **options: Any) -> None:
        self._number = loop.number()
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class Loop(asyncio.SelectorEventLoop):
    """See above."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.network: Any = None
        self.proxy: Any = None
        self.skip = 0.0  # seconds that the next jump of the clock is long at least
        self.broken: Exception | None = None  # why the run cannot go on
        self._turns = 0
        self._numbers = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9
        self.set_task_factory(self._keep)

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def create_future(self) -> Any:
        return _Future(loop=self)

    def _keep(self, _: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task; one of a life is kept for good, since to let go of it would run its `finally`."""
        task = _Task(coroutine, loop=self, **options)
        context = options.get("context")
        life = LIFE.get(None) if context is None else context.get(LIFE)
        if life is not None:
            life.tasks.append(task)
        return task

    def time(self) -> float:
        return 1000.0 + self.clock.elapsed

    def look(self) -> None:
        """End a run that cannot go on, or does not end."""
        self._turns += 1
        if self.broken is not None:
            raise self.broken
        if self._turns > TURNS:
            raise StuckError(f"the loop has turned {TURNS} times, and the run has not ended")

    # Whatever a life has made belongs to it, and runs no more when it is dead.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        life = LIFE.get(None) if context is None else context.get(LIFE)
        if life is not None:
            return super().call_soon(life.step, callback, *args, context=context)
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        life = LIFE.get(None) if context is None else context.get(LIFE)
        if life is not None:
            return super().call_at(when, life.step, callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        life = LIFE.get(None)
        if life is not None:
            return super()._add_reader(fd, life.step, callback, *args)  # type: ignore[misc]
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Any, *args: Any) -> Any:
        life = LIFE.get(None)
        if life is not None:
            return super()._add_writer(fd, life.step, callback, *args)  # type: ignore[misc]
        return super()._add_writer(fd, callback, *args)  # type: ignore[misc]

    def _make_socket_transport(self, sock: Any, protocol: Any, *args: Any, **options: Any) -> Any:
        transport = super()._make_socket_transport(sock, protocol, *args, **options)  # type: ignore[misc]
        life = LIFE.get(None)
        if life is not None:
            life.own(transport)
        return transport

    def sever(self, transport: Any) -> None:
        """Close the socket of a transport whose owner is dead."""
        sock = transport._sock
        if sock is None or sock.fileno() < 0:
            return
        fd = sock.fileno()
        self._remove_reader(fd)  # type: ignore[attr-defined]
        self._remove_writer(fd)  # type: ignore[attr-defined]
        self._transports.pop(fd, None)  # type: ignore[attr-defined]
        sock.close()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run at once: a thread would make its own time."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the waiting task's
            done.set_exception(error)
        return done

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    # Connections are made to what the run holds, and nowhere else.

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.network.listen(LIFE.get(None), protocol_factory, host)

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
    ) -> Any:
        if sock is None:
            sock = await self.network.dial((host, port))
        return await super().create_connection(protocol_factory, sock=sock, **options)  # type: ignore[misc]

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **_: Any) -> Any:
        near, far = socket.socketpair()
        life = LIFE.get(None)
        outside(self._make_socket_transport, far, self.proxy.session(life))
        far.setblocking(False)
        return await self.create_connection(protocol_factory, sock=near)


class Thread:
    """Stands for a thread of code that needs one: it has run when it was started."""

    def __init__(self, *, target: Callable[[], object], **_: Any) -> None:
        self._target = target

    def start(self) -> None:
        self._target()


def refuse_threads() -> None:
    """Let every other thread be an error: what runs beside the loop is in nobody's time, and no seed decides it."""

    def start(thread: threading.Thread) -> None:
        raise StuckError(f"a thread is started that the run does not know of: {thread.name}")

    threading.Thread.start = start  # type: ignore[method-assign]


def outside(call: Callable[..., Any], *args: Any) -> Any:
    """Call something that belongs to no life."""
    return contextvars.Context().run(call, *args)

"""One `kapsel up` from its first line to its last: starts everything in order, keeps it running, stops it in order.

Called by `up`. What each part does lies elsewhere: the data directory, Postgres, children, components and
configuration have modules of their own.
"""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from watchfiles import awatch

from kapsel_cli import announce
from kapsel_cli.child_logs import ChildLog
from kapsel_cli.children import Child, ChildPlan
from kapsel_cli.components import (
    Surroundings,
    component_plan,
    components,
    postgres_plan,
)
from kapsel_cli.configure import Applied, Desired
from kapsel_cli.data_dir import Running
from kapsel_cli.database_lock import DatabaseLock
from kapsel_cli.errors import CliError
from kapsel_cli.ports import LOCAL
from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_cli.replay_news import ReplayNews
from kapsel_cli.terminal import Terminal
from kapsel_cli.up import Options, Place
from kapsel_store import partitions
from kapsel_store.database import Pool, connect, is_away
from kapsel_store.errors import SealingError, StoreError
from kapsel_store.migrate import migrate
from kapsel_store.sealing import SealingKeys

SCHEMA: Final = "kapsel"
MAINTAIN_SECONDS: Final = 3600.0
NEWS_SECONDS: Final = 2.0
PLAN_SECONDS: Final = 60  # keys rotate with time, and some file systems tell nobody of changes
SETTLE_MILLISECONDS: Final = 300  # an editor or a checkout writes several files, each in several steps
AWAY_SECONDS: Final = 1.0
CLEANUP_SECONDS: Final = 5.0  # for closing connections; a database that hangs must not keep the children from draining
# What takes work in stops first, and what all of them need last; the attestor signs what the deliverers have recorded.
STOP_ORDER: Final = (("receiver",), ("deliverer",), ("attestor", "console"), ("postgres",))
STOPPED: Final = 0
KILLED: Final = 1


def supervise(options: Options, place: Place, preparing: Future[None] | None) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP, and return the exit code; `preparing` the embedded Postgres goes on."""
    try:
        return asyncio.run(Supervisor(options, place, preparing, Terminal()).run())
    except (BaseExceptionGroup, StoreError) as error:
        raise _in_words(error) from None


def _in_words(error: BaseException) -> BaseException:
    """Return the first error of a group, as one for the person if it is an expected one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, SealingError):
        return CliError(f"{error}", "Put the sealing.key back that this data was written with")
    if isinstance(error, StoreError):
        return CliError(f"{error}", "Correct that and start again")
    return error


class Supervisor:
    """All tasks and children of one `kapsel up`."""

    def __init__(self, options: Options, place: Place, preparing: Future[None] | None, terminal: Terminal) -> None:
        self._options = options
        self._place = place
        self._preparing = preparing
        self._data = place.data
        self._ports = place.ports
        self._terminal = terminal
        self._children: list[Child] = []  # in the order in which they were started
        self._stopping = asyncio.Event()
        self._exit_code = STOPPED
        self._url = ""  # of the database
        self._usable = asyncio.Event()  # the database: of this version, and with partitions for what comes
        self._origin = ""  # of the log that the configuration names
        self._said: tuple[str, ...] = ()  # the problems that were said last

    async def run(self) -> int:
        """Start, keep running, drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        async with asyncio.TaskGroup() as tasks:
            # Not a task of the group: an error there would cancel the children instead of draining them.
            work = asyncio.ensure_future(self._work(tasks))
            work.add_done_callback(_look_at)
            try:
                await _first_of(work, self._stopping.wait())
            finally:
                ended_by_itself = work.done()  # or else what comes of it comes of stopping, such as the database's end
                work.cancel()
                await asyncio.wait([work], timeout=CLEANUP_SECONDS)
                await self._drain()
        if ended_by_itself:
            work.result()
        return self._exit_code

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._terminal.warn("stopping at once")
            self._exit_code = KILLED
            for child in self._children:
                child.kill()
        self._stopping.set()

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        """Everything from the database up; ends by being cancelled, or with an error."""
        postgres = self._place.postgres
        # What this process does for itself needs a session that lasts.
        url = self._options.database_direct_url or self._options.database_url or ""
        receivers: list[Child] = []
        if postgres is not None:
            # Webhooks wait for receivers alone, and these for their imports: at the side of a database in the making.
            receivers = self._launch(tasks, self._component_plans(roles=True, receivers=True))
            url = await self._start_postgres(tasks, postgres)
        roles = await _migrate(url)
        desired = Desired(
            directory=self._options.directory,
            sealing=SealingKeys.from_file(self._data.sealing_key),
            relay=self._options.relay,
            actor=f"kapsel up (uid {os.getuid()})",
        )
        pool = connect(url, role=None, schema=SCHEMA, size=2, component="up")
        async with pool, DatabaseLock(url, SCHEMA) as lock, asyncio.TaskGroup() as duties:
            duties.create_task(lock.keep())
            # Before the first event: a day whose events went to the default partition never gets one of its own.
            await self._maintain_once(pool)
            self._url = self._options.database_url or url
            self._usable.set()
            # Receivers first, while the manifests are read: few processors start all processes no sooner side by side.
            receivers = receivers or self._launch(tasks, self._component_plans(roles=roles, receivers=True))
            applied, _ = await asyncio.gather(self._apply(pool, desired), _all_ready(receivers))
            await _all_ready(self._launch(tasks, self._component_plans(roles=roles, receivers=False)))
            self._data.write_state(self._running())
            announce.ready(self._terminal, applied.configuration, self._running(), time.monotonic() - self._place.began)
            duties.create_task(self._follow(pool, desired))
            duties.create_task(self._maintain(pool))
            duties.create_task(self._tell_of_replays(pool))

    async def _start_postgres(self, tasks: asyncio.TaskGroup, postgres: EmbeddedPostgres) -> str:
        if self._preparing is not None:
            await asyncio.wrap_future(self._preparing)
        await _all_ready(self._launch(tasks, [postgres_plan(postgres)]))
        if postgres.opened:
            names = ", ".join(str(path) for path in postgres.opened)
            self._terminal.say(f"made {names} passable (chmod o+x) for the user that Postgres runs as, as root may not")
        self._terminal.done(f"Postgres is ready; the data is in {self._data.path}")
        return postgres.url

    async def _database_url(self) -> str:
        await self._usable.wait()
        return self._url

    def _component_plans(self, *, roles: bool, receivers: bool) -> list[ChildPlan]:
        around = Surroundings(
            database_url=self._database_url,
            database_direct_url=self._options.database_direct_url,
            roles=roles,
            schema=SCHEMA,
            host=self._options.host,
            ports=self._ports,
            sealing_key=self._data.sealing_key,
            fence_file=lambda: self._data.fence_file(self._origin),
            family=self._place.family,
        )
        everything = components(self._options.workers, self._ports)
        return [component_plan(one, around) for one in everything if (one.kind == "receiver") is receivers]

    def _launch(self, tasks: asyncio.TaskGroup, plans: Sequence[ChildPlan]) -> list[Child]:
        """Start children side by side."""
        started = []
        for plan in plans:
            log = ChildLog(self._data.logs / f"{plan.name}.log", self._terminal.warn, show_all=self._options.show_logs)
            child = Child(plan, log, self._terminal.warn)
            self._children.append(child)
            started.append(child)
            tasks.create_task(child.run())
        return started

    async def _apply(self, pool: Pool, desired: Desired) -> Applied:
        async with pool.acquire() as connection:
            applied = await desired.apply(connection, datetime.now(UTC))
        self._change_log("" if applied.configuration.log is None else applied.configuration.log.origin)
        for note in applied.notes if applied.problems != self._said or applied.changes else ():
            self._terminal.say(note)
        if applied.problems != self._said:
            for problem in applied.problems:
                self._terminal.warn(problem)
            if self._said and not applied.problems:
                self._terminal.done("no manifest has a problem any more")
            self._said = applied.problems
        if applied.changes:
            self._terminal.done(
                f"configuration {applied.configuration.generation}: {announce.summary(applied.changes)}"
            )
        return applied

    def _change_log(self, origin: str) -> None:
        if origin == self._origin:
            return
        self._origin = origin
        for child in self._children:
            if child.plan.name == "attestor":
                self._terminal.say(f"the log is now {origin or 'none'}: the attestor starts again")
                child.restart()

    async def _follow(self, pool: Pool, desired: Desired) -> None:
        """Apply whatever changes in the directory, and what changes with time."""
        changes = awatch(
            desired.directory,
            debounce=SETTLE_MILLISECONDS,
            rust_timeout=PLAN_SECONDS * 1000,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        async for _ in changes:
            while not await self._when_there(self._apply(pool, desired), "apply the configuration"):  # noqa: ASYNC110
                await asyncio.sleep(AWAY_SECONDS)

    async def _maintain(self, pool: Pool) -> None:
        wait = 0.0  # the partitions are there, what is over may not be empty
        while True:
            await asyncio.sleep(wait)
            done = await self._when_there(self._maintain_all(pool), "maintain the partitions")
            wait = MAINTAIN_SECONDS if done else AWAY_SECONDS

    async def _tell_of_replays(self, pool: Pool) -> None:
        news = ReplayNews()
        while True:
            try:
                async with pool.acquire() as connection:
                    for line in await news.look(connection):
                        self._terminal.done(line)
            except Exception as error:
                if not is_away(error):  # that is told by whoever needs the database more
                    raise
            await asyncio.sleep(NEWS_SECONDS)

    async def _maintain_all(self, pool: Pool) -> None:
        await self._maintain_once(pool)
        finished = False
        while not finished:
            async with pool.acquire() as connection:
                finished = (await partitions.empty(connection, datetime.now(UTC))).finished

    async def _maintain_once(self, pool: Pool) -> None:
        async with pool.acquire() as connection:
            await partitions.maintain(connection, datetime.now(UTC))

    async def _when_there(self, doing: Coroutine[Any, Any, object], what: str) -> bool:
        """Do something that needs the database; False if it is away, so that it should be done soon."""
        try:
            await doing
        except Exception as error:  # noqa: BLE001 - what goes wrong with one change must not stop what runs
            if is_away(error):
                self._terminal.warn(f"cannot {what} while the database is away")
                return False
            self._terminal.warn(f"cannot {what}: {type(error).__name__}: {error}")
        return True

    async def _drain(self) -> None:
        """Stop the children in order: what takes work in first, what all of them need last."""
        if not self._children:
            return
        self._terminal.say("finishing what is under way; Ctrl-C again stops at once")
        for kinds in STOP_ORDER:
            leaving = [child for child in self._children if child.plan.name.partition("-")[0] in kinds]
            await asyncio.gather(*(child.stop() for child in leaving))
        for child in self._children:
            child.log.close()
        self._terminal.done("stopped")

    def _running(self) -> Running:
        metrics = {
            component.name: f"http://{LOCAL}:{component.health_port}/metrics"
            for component in components(self._options.workers, self._ports)
        }
        return Running(
            pid=os.getpid(),
            ingest=f"http://{announce.reachable(self._options.host)}:{self._ports.ingest}",
            console=f"http://{LOCAL}:{self._ports.console}",
            metrics=metrics,
        )


async def _all_ready(children: Sequence[Child]) -> None:
    for child in children:
        await child.wait_ready()


async def _first_of(task: "asyncio.Future[Any]", other: Coroutine[Any, Any, object]) -> None:
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _look_at(ended: "asyncio.Future[Any]") -> None:
    """Take note of an error that nobody else may ask for, or asyncio shows it with all its lines."""
    if not ended.cancelled():
        ended.exception()


async def _migrate(url: str) -> bool:
    """Bring the schema up to date and return whether each component has a database role of its own."""
    try:
        return (await migrate(url, schema=SCHEMA)).roles
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise CliError(
            f"the database cannot be used: {reason}",
            "Check --database-url and --database-direct-url, and that the user may create a schema (kapsel needs "
            "Postgres 16 or newer)",
        ) from error

"""Connections to Postgres: the pool of a process, hints by NOTIFY, and what "the database is away" means.

Every component opens its pool and its Listener here. A pool opens no connection before it is asked, so that a database
that is away at start is no error of the process: callers ask `is_away` and wait. What is different through a pooler is
in `pooler`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import asyncpg

from kapsel_runtime.backoff import reconnecting
from kapsel_runtime.waiting import until
from kapsel_store.errors import DatabaseURLError
from kapsel_store.pooler import carrying

CONFIGURATION_CHANNEL = "kapsel_configuration"
DELIVERIES_CHANNEL = "kapsel_deliveries"

CONNECT_TIMEOUT = 5.0
COMMAND_TIMEOUT = 15.0
QUIET = 30.0  # seconds after which a connection that only listens is asked whether it lives
STATEMENTS = 100  # that a connection keeps prepared: more than there are
TRIES = 5  # of a statement that others roll back

logger = logging.getLogger(__name__)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Answer = TypeVar("Answer")

# These run few statements very often, and planning one anew costs more than running it. People's listings on the
# console differ by what is asked, and keep their own plans.
_DATA_PLANE = frozenset({"receiver", "deliverer", "attestor"})

# A plan that was made while the queue was empty is kept when it is long: it may read no table whole, nor all that an
# index has of a destination.
_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_bitmapscan": "off"}

_AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,  # shut down, starting up, cancelled
    asyncpg.exceptions.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.exceptions.TransactionRollbackError,  # a row moved to another partition meanwhile, or a deadlock
    asyncpg.exceptions.PostgresSystemError,  # an input/output error of the server's own
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a standby, before it is promoted
    # A standby, if the URL asks for a server that takes writes; and a connection that broke off in the middle of an
    # answer and is asked again before it has noticed: asyncpg then finds itself "in another state".
    asyncpg.exceptions.InternalClientError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,  # while credentials are being rotated
)


# Who vanishes with its machine says nothing. By its defaults Postgres keeps the lock of such an attestor for two hours,
# and for a quarter of one if an answer was under way: both end after 25 s.
_NOTICED = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


def is_away(error: BaseException) -> bool:
    """Whether the database cannot serve just now, so that the same statement may pass later."""
    return isinstance(error, _AWAY)


async def again(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask a statement, and anew if it met what others did at the same moment: it was rolled back whole.

    A delivery that ends moves to another partition, and Postgres refuses to follow a row there. Not for statements in a
    transaction, all of which is lost by it.
    """
    for _ in range(TRIES - 1):
        with suppress(asyncpg.exceptions.TransactionRollbackError):
            return await ask()
    return await ask()


def settings(
    *,
    schema: str,
    role: str | None,
    component: str,
    synchronous_commit: bool = True,
    nested_loops: bool = True,
    pooled: bool = False,
) -> dict[str, str]:
    """Return the session settings of one of our connections; those of a pooler to Postgres are the pooler's."""
    session = {"application_name": f"kapsel-{component}", "search_path": schema, "timezone": "UTC", "jit": "off"}
    if role is not None:
        session["role"] = role
    if component in _DATA_PLANE:
        session |= _PLANS
    if not nested_loops:
        session["enable_nestloop"] = "off"
    if not synchronous_commit:
        session["synchronous_commit"] = "off"
    return session if pooled else session | _NOTICED


async def _keep_session(connection: Connection) -> None:
    """Skip asyncpg's reset of a returned connection: we leave nothing in a session, and it costs a round trip."""


def connect(
    url: str,
    *,
    role: str | None,
    schema: str,
    size: int,
    component: str,
    synchronous_commit: bool = True,
    nested_loops: bool = True,
    pooled: bool = False,
) -> Pool:
    """Return a pool of at most `size` connections that acts as `role`; use it with `async with`, which opens none yet.

    `nested_loops`: off for statements that join two batches of a size no statistics tell, which is the square of it.
    `pooled`: the URL leads through a pooler in transaction mode. Raises DatabaseURLError if the URL cannot be parsed,
    and for a connection through a pooler that nobody spoke of.
    """
    session = settings(
        schema=schema,
        role=role,
        component=component,
        synchronous_commit=synchronous_commit,
        nested_loops=nested_loops,
        pooled=pooled,
    )
    name = {"application_name": session["application_name"]}
    try:
        return asyncpg.create_pool(
            url,
            min_size=0,
            max_size=size,
            max_inactive_connection_lifetime=0,
            timeout=CONNECT_TIMEOUT,
            command_timeout=COMMAND_TIMEOUT,
            reset=_keep_session,
            connect=_open,
            connection_class=carrying(session) if pooled else asyncpg.Connection,
            # A statement that was prepared in one server's session is not known in the next.
            statement_cache_size=0 if pooled else STATEMENTS,
            server_settings=name if pooled else session,
        )
    except (ValueError, asyncpg.InterfaceError) as error:
        raise DatabaseURLError(f"the database URL cannot be used: {error}") from error


async def _open(*arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(*arguments, **options)
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise
        raise DatabaseURLError(
            "the database URL leads through a pooler such as PgBouncer, which does not keep a session: set "
            f"KAPSEL_DATABASE_DIRECT_URL to the URL of Postgres itself besides it ({error})"
        ) from error


def drop(connection: Connection) -> None:
    """Close a pool's connection at once, also one that is lost already: its pool then refuses to hear of it."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def now(connection: Connection) -> datetime:
    """Return the database's clock, which all times of the queue are told by."""
    moment: datetime = await connection.fetchval("SELECT now()")
    return moment


class Listener:
    """Keeps one connection that listens; a hint sets the channel's event, and so does each reconnect.

    What a hint says is for who has asked to be told.

    A hint can be lost, so whoever waits for an event also polls.
    """

    def __init__(
        self,
        url: str,
        *,
        role: str | None,
        schema: str,
        component: str,
        channels: Sequence[str],
        quiet: float = QUIET,
    ) -> None:
        self._url = url
        self._quiet = quiet
        self._settings = settings(schema=schema, role=role, component=component)
        self._events: Mapping[str, asyncio.Event] = {channel: asyncio.Event() for channel in channels}
        self._told: dict[str, Callable[[str], None]] = {}

    def event(self, channel: str) -> asyncio.Event:
        """Return the event of a channel; who waits for it clears it."""
        return self._events[channel]

    def tell(self, channel: str, told: Callable[[str], None]) -> None:
        """Call back with what a hint of a channel says, instead of setting the event; not if it says nothing."""
        self._told[channel] = told

    def _heard(self, _connection: object, _pid: int, channel: str, said: object) -> None:
        if channel in self._told and isinstance(said, str) and said:
            self._told[channel](said)
        else:
            self._events[channel].set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen until `stopping`, connecting again with backoff whenever the connection is lost."""
        waits = reconnecting()
        while not stopping.is_set():
            try:
                connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT, server_settings=self._settings)
            except Exception as error:
                if not is_away(error):
                    raise
                await until(stopping, timeout=next(waits))
                continue
            waits = reconnecting()
            await self._listen(connection, stopping)

    async def _listen(self, connection: asyncpg.Connection, stopping: asyncio.Event) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel, event in self._events.items():
                await connection.add_listener(channel, self._heard)
                event.set()
            waiting = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(lost.wait())]
            try:
                while not (await asyncio.wait(waiting, timeout=self._quiet, return_when=asyncio.FIRST_COMPLETED))[0]:
                    await connection.fetchval("SELECT 1", timeout=CONNECT_TIMEOUT)
            finally:
                for task in waiting:
                    task.cancel()
        except Exception as error:
            if not is_away(error):
                raise
        finally:
            if not stopping.is_set():
                logger.info("the listening connection was lost; connecting again")
            connection.terminate()

"""The proxy before Postgres: it knows the protocol, so it can break a statement at any of its stages.

A unit is what a client sends up to the point where it waits for an answer. Each unit is looked up in the plan of
faults: it may be refused with an SQLSTATE, cut off before it reaches the server, cut off after the server has committed
it and before the answer, answered in half, or held up. One session at a time has the server, from its first unit to
the end of its transaction, and a unit is answered before anything else goes on: so the server has no choices to make,
nobody ever waits for a lock, and how quick it is decides nothing.

NOTIFY is only a hint, and the server sends it whenever it likes. So the server's are dropped, and the proxy sends its
own, in virtual time, late or not at all as the seed says.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from kapsel_store import database, queries
from simulation import backends as server
from simulation import wire
from simulation.backends import NO_MORE_ROWS, Backends, Statement, Unit, query
from simulation.clock import Clock
from simulation.loop import Life, Loop, StuckError
from simulation.wire import SilentError

ABOUT_TYPES = ("typeinfo_tree", "set_config('jit'")
CHANNELS = (database.CONFIGURATION_CHANNEL, database.DELIVERIES_CHANNEL)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a unit."""

    kind: str  # before after torn error delay
    sqlstate: str = ""
    seconds: float = 0.0


_NAMES: dict[str, str] = {}


def learn_names() -> None:
    """Know each statement of ours by its name, also where a planted bug has replaced it."""
    directory = Path(queries.__file__).parent / "sql" / "queries"
    for file in sorted(directory.glob("*.sql")):
        for name, sql in queries._file(file.stem).items():
            _NAMES[sql] = f"{file.stem}.{name}"


def name(unit: Unit) -> str:
    return _NAMES.get(unit.sql) or " ".join(unit.sql.split()[:2]) or "sync"


Decide = Callable[["Session", Unit], Fault | None]


class Proxy:
    """All sessions of a run."""

    def __init__(self, loop: Loop, backends: Backends, clock: Clock, chance: Random) -> None:
        self.loop = loop
        self.backends = backends
        self.clock = clock
        self.chance = chance
        self.decide: Decide = lambda *_: None
        self.refuses: Callable[[Life | None], bool] = lambda _: False
        self.hint_loss = 0.0
        self.sessions: list[Session] = []
        self.trace: list[str] = []
        self.faults: list[tuple[float, str]] = []
        self.statements = Counter[str]()
        self.asked = ""  # what the server is at
        self._queue: deque[tuple[Session, Unit]] = deque()
        self._holder: Session | None = None
        self._is_pumping = False
        loop.proxy = self

    def session(self, life: Life | None) -> "Session":
        made = Session(self, life)
        self.sessions.append(made)
        return made

    def note(self, life: Life | None, what: str) -> None:
        self.trace.append(f"{self.clock.elapsed:.6f} {life} {what}")

    def submit(self, session: "Session", unit: Unit) -> None:
        self._queue.append((session, unit))
        self.pump()

    def withdraw(self, session: "Session") -> Unit | None:
        """Take back what waits for its turn."""
        for waiting in self._queue:
            if waiting[0] is session:
                self._queue.remove(waiting)
                return waiting[1]
        return None

    def pump(self) -> None:
        """Serve those whose turn it is: the session in a transaction alone, or else who came first."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while (turn := self._next()) is not None:
                self._holder = turn[0]
                turn[0].forward(turn[1])
        except (SilentError, OSError) as error:
            self.loop.broken = StuckError(f"{error}, asked for {self.asked!r}")
        finally:
            self._is_pumping = False

    def _next(self) -> tuple["Session", Unit] | None:
        if self._holder is not None and not self._holder.holds:
            self._holder = None
        for waiting in list(self._queue):
            if waiting[0].is_closed:
                self._queue.remove(waiting)
            elif self._holder in (None, waiting[0]):
                self._queue.remove(waiting)
                return waiting
        return None

    def hint(self, channels: tuple[str, ...]) -> None:
        for session in self.sessions:
            for channel in channels:
                if channel in session.channels and self.chance.random() >= self.hint_loss:
                    self.loop.call_later(self.chance.uniform(0.0005, 0.02), session.notify, channel)

    def cut_all(self, chance: float) -> None:
        """End sessions as a server does that shuts down."""
        for session in list(self.sessions):
            if session.life is not None and self.chance.random() < chance:
                session.cut(wire.error("57P01", "terminating connection due to administrator command", "FATAL"))


class Session(asyncio.Protocol):
    """One connection of a client, and the one to the server that stands for it."""

    def __init__(self, proxy: Proxy, life: Life | None) -> None:
        self.proxy = proxy
        self.life = life
        self.pid = 0
        self.channels: set[str] = set()
        self.is_closed = False
        self._fields: dict[str, str] = {}
        self._client: Any = None
        self._server: server.Session | None = None
        self._started = False
        self._buffer = bytearray()
        self._statements: dict[bytes, tuple[Statement, str]] = {}
        self._gathering = Unit()
        self._held: Unit | None = None
        self._behind: deque[Unit] = deque()  # what came after the one that is held up

    @property
    def holds(self) -> bool:
        """Whether it is in the middle of something that no other may see or wait for."""
        return self._server is not None and (self._server.status != b"I" or self._server.is_copying)

    # The client.

    def connection_made(self, transport: Any) -> None:
        self._client = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._started and not self._start():
            return
        for kind, whole in wire.split(self._buffer):
            self._take(kind, whole)

    def connection_lost(self, exc: Exception | None) -> None:
        self._close()

    def _start(self) -> bool:
        if len(self._buffer) < 8:
            return False
        size, code = int.from_bytes(self._buffer[:4]), int.from_bytes(self._buffer[4:8])
        if len(self._buffer) < size:
            return False
        body = bytes(self._buffer[8:size])
        del self._buffer[:size]
        if code == wire.SSL:
            self._client.write(b"N")
            return False
        if code == wire.CANCEL:
            self._cancel(int.from_bytes(body[:4]))
            return False
        self._started = True
        if self.life is not None and self.proxy.refuses(self.life):
            self.proxy.note(self.life, "connection refused")
            self._client.write(wire.error("57P03", "the database system is starting up", "FATAL"))
            self._client.close()
            return False
        fields = wire.startup_fields(body)
        fields.pop("", None)
        fields["search_path"] = f"{fields.get('search_path', 'kapsel')}, pg_catalog"
        self._fields = fields
        self.proxy.submit(self, Unit(kinds=b"0", sql="connect"))  # it takes its turn like a statement
        return True

    def _cancel(self, pid: int) -> None:
        for session in list(self.proxy.sessions):
            unit = (session._held or self.proxy.withdraw(session)) if session.pid == pid else None
            if unit is not None:
                unit.cancelled = True
                session._refuse(unit, "57014", "canceling statement due to user request")
            elif session.pid == pid and session._server is not None and session._server.is_copying:
                session._tell(session._ask(NO_MORE_ROWS))
                self.proxy.pump()
        self._client.close()

    def _take(self, kind: bytes, whole: bytes) -> None:
        unit = self._gathering
        unit.kinds += kind
        match kind:
            case b"P":
                client, text = whole[5:].split(b"\0", 1)
                self._statements[client] = self.proxy.backends.statement(text), text.partition(b"\0")[0].decode()
                self._needs(unit, client)
            case b"B":
                portal, client, rest = whole[5:].split(b"\0", 2)
                statement = self._needs(unit, client)
                unit.data += wire.message(kind, portal + b"\0" + statement.name + b"\0" + rest)
            case b"D" if whole[5:6] == b"S":
                self._needs(unit, whole[6:-1])
            case b"C" | b"H":  # the server keeps its statements, and portals end with their transaction
                pass
            case b"X":
                self._client.close()
                self._close()
                return
            case _:
                unit.data += whole
        if kind == b"Q":
            unit.sql = whole[5:-1].decode()
        if kind in (b"S", b"H", b"Q", b"c", b"f"):
            self._gathering = Unit()
            self._submit(unit)

    def _needs(self, unit: Unit, client: bytes) -> Statement:
        statement, unit.sql = self._statements[client]
        unit.needs.append(statement)
        return statement

    def _submit(self, unit: Unit) -> None:
        if self._held is not None:  # a client may send the rows of a COPY before it has heard that they are wanted
            self._behind.append(unit)
            return
        proxy = self.proxy
        fault = unit.fault = proxy.decide(self, unit) if self.life is not None else None
        proxy.statements[name(unit)] += 1
        proxy.note(self.life, f"{name(unit)} {unit.ends.decode()} {fault.kind if fault else ''}")
        if fault is not None:
            proxy.faults.append((proxy.clock.elapsed, f"{self.life} {name(unit)} {fault.kind} {fault.sqlstate}"))
        match fault:
            case Fault(kind="before"):
                self.cut()
            case Fault(kind="error", sqlstate=sqlstate):
                self._refuse(unit, sqlstate, "as the seed says")
            case Fault(kind="delay", seconds=seconds):
                self._held = unit
                proxy.loop.call_later(seconds, self._release, unit)
            case _:
                proxy.submit(self, unit)

    def _release(self, unit: Unit) -> None:
        if self.is_closed or unit.cancelled:
            return
        self._held = None
        self.proxy.submit(self, unit)
        self._catch_up()

    def _catch_up(self) -> None:
        while self._behind and self._held is None and not self.is_closed:
            self._submit(self._behind.popleft())

    def _refuse(self, unit: Unit, sqlstate: str, text: str) -> None:
        """Answer with an error in place of the server, which has to forget what was prepared for this."""
        if self.is_closed:
            return
        self._held = None
        reply = wire.error(sqlstate, text)
        if unit.ends != b"H":
            assert self._server is not None
            if self._server.is_copying:
                self._ask(NO_MORE_ROWS)
            if "COMMIT" in unit.sql and self._server.status != b"I":  # one that fails is the end of its transaction
                self._ask(query("ROLLBACK"))
            reply += wire.ready(b"I" if self._server.status == b"I" else b"E")
        self._tell(reply)
        self._catch_up()
        self.proxy.pump()

    # The server.

    def forward(self, unit: Unit) -> None:
        """Have the server's answer to a unit, and tell as much of it as the fault lets through."""
        proxy, fault = self.proxy, unit.fault
        reply = self._connect() if self._server is None else self._answered(unit)
        if self._server is None or self._server.is_closed:  # it has hung up: it says why nobody is let in
            self._tell(reply)
            self.cut(abort=False)
            return
        if self._server.status == b"I" and "LISTEN" in unit.sql:
            self.channels |= {channel for channel in CHANNELS if channel in unit.sql}
        if unit.ends != b"H" and ("pg_notify" in unit.sql or name(unit).startswith("hints.")):
            proxy.hint(CHANNELS if name(unit).startswith("hints.") else CHANNELS[1:])
        if fault is not None and fault.kind == "after":
            self.cut()
        elif fault is not None and fault.kind == "torn":
            self._tell(reply[: len(reply) // 2])
            self.cut(abort=False)
        else:
            self._tell(reply)

    def _connect(self) -> bytes:
        self._server = self.proxy.backends.take(self._fields)
        for kind, whole in wire.split(bytearray(self._server.greeting)):
            if kind == b"K":
                self.pid = int.from_bytes(whole[5:9])
        return self._server.greeting

    def _answered(self, unit: Unit) -> bytes:
        assert self._server is not None
        closed = wire.message(b"3", b"") * unit.kinds.count(b"C")
        if unit.ends == b"H":
            return self._described(unit.needs[-1])
        if set(unit.kinds) == set(b"CS"):
            return closed + wire.ready(self._server.status)
        if any(word in unit.sql for word in ABOUT_TYPES):
            return self._recall(unit)
        return closed + self._ask(unit)

    def _described(self, statement: Statement) -> bytes:
        """Answer what a statement is like as the server did the first time."""
        assert self._server is not None
        if not statement.about:
            about = self._server.describe(statement, self.proxy.clock.database_microseconds())
            if about.startswith(b"E"):
                return about
            statement.about = about
        return wire.message(b"1", b"") + statement.about

    def _recall(self, unit: Unit) -> bytes:
        """Answer what is always the same as the server did the first time: it costs more than all else together."""
        assert self._server is not None
        known = self.proxy.backends.types.get(bytes(unit.data))
        if known is None:
            reply = self._ask(unit)
            if reply.startswith(b"E"):
                return reply
            known = self.proxy.backends.types[bytes(unit.data)] = reply[:-6]
        return known + wire.ready(self._server.status)

    def _ask(self, unit: Unit) -> bytes:
        assert self._server is not None
        self.proxy.asked = f"{name(unit)} {bytes(unit.data)[:200]!r}"
        return self._server.ask(unit, self.proxy.clock.database_microseconds())

    def _tell(self, data: bytes) -> None:
        if not self.is_closed:
            self._client.write(data)

    def notify(self, channel: str) -> None:
        if not self.is_closed:
            body = self.pid.to_bytes(4) + channel.encode() + b"\0\0"
            self._client.write(wire.message(b"A", body))

    def cut(self, last_words: bytes = b"", *, abort: bool = True) -> None:
        """End the client's connection."""
        if self.is_closed:
            return
        if last_words:
            self._client.write(last_words)
        if abort and not last_words:
            self._client.abort()
        else:
            self._client.close()
        self._close()

    def _close(self) -> None:
        """The client is gone, and so is all that the server held for it."""
        if self.is_closed:
            return
        self.is_closed = True
        self.proxy.sessions.remove(self)
        if self._server is not None:
            self.proxy.backends.give_back(self._server)
            self._server = None
        self.proxy.pump()

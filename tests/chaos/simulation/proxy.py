"""The proxy before Postgres: it knows the protocol, so it can break a statement at any of its stages.

A unit is what a client sends up to the point where it waits for an answer. Each unit is looked up in the plan of
faults: it may be refused with an SQLSTATE, cut off before it reaches the server, cut off after the server has committed
it and before the answer, answered in half, or held up. In serial runs one session at a time has the server, from its
first unit to the end of its transaction, so the server has no choices to make; in concurrent runs it has.

NOTIFY is only a hint, and the server sends it whenever it likes. So the server's are dropped, and the proxy sends its
own, in virtual time, late or not at all as the seed says.
"""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from kapsel_store import database, queries
from simulation import wire
from simulation.clock import Clock
from simulation.loop import Life, Loop, outside
from simulation.wire import Control

CHANNELS = (database.CONFIGURATION_CHANNEL, database.DELIVERIES_CHANNEL)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a unit."""

    kind: str  # before after torn error delay
    sqlstate: str = ""
    seconds: float = 0.0


@dataclass(kw_only=True)
class Unit:
    """What a client sends until it waits for an answer."""

    data: bytearray = field(default_factory=bytearray)
    sql: str = ""
    ends: bytes = b""
    fault: Fault | None = None
    cancelled: bool = False

    @property
    def name(self) -> str:
        return _NAMES.get(self.sql) or " ".join(self.sql.split()[:2]) or "sync"

    @property
    def writes(self) -> bool:
        return any(word in self.sql for word in ("INSERT", "UPDATE", "DELETE", "COMMIT"))


_NAMES: dict[str, str] = {}


def learn_names() -> None:
    """Know each statement of ours by its name, also where a planted bug has replaced it."""
    directory = Path(queries.__file__).parent / "sql" / "queries"
    for file in sorted(directory.glob("*.sql")):
        for name, sql in queries._file(file.stem).items():
            _NAMES[sql] = f"{file.stem}.{name}"


Decide = Callable[["Session", Unit], Fault | None]


class Proxy:
    """All sessions of a run."""

    def __init__(
        self, loop: Loop, directory: Path, control: Control, clock: Clock, chance: Random, *, serial: bool
    ) -> None:
        self.loop = loop
        self.control = control
        self.clock = clock
        self.chance = chance
        self.serial = serial
        self.decide: Decide = lambda *_: None
        self.refuses: Callable[[Life | None], bool] = lambda _: False
        self.hint_loss = 0.0
        self.sessions: list[Session] = []
        self.trace: list[str] = []
        self.faults: list[tuple[float, str]] = []
        self.statements = Counter[str]()
        self._path = str(directory / ".s.PGSQL.5432")
        self._queue: deque[tuple[Session, Unit]] = deque()
        self._holder: Session | None = None
        self._told = -1
        loop.proxy = self

    def session(self, life: Life | None) -> "Session":
        made = Session(self, life)
        self.sessions.append(made)
        return made

    def is_waiting(self) -> bool:
        """Whether Postgres is at work for somebody."""
        return any(session.is_busy for session in self.sessions)

    def is_locked_out(self) -> bool:
        """Whether everybody whom Postgres works for waits for a lock, which only time can free."""
        pids = [str(session.pid) for session in self.sessions if session.is_busy]
        if not all(session.pid for session in self.sessions if session.is_busy):
            return False
        (row,) = self.control.query(
            f"SELECT count(*) FROM pg_stat_activity WHERE pid IN ({','.join(pids)}) AND wait_event_type = 'Lock'"
        )
        if row[0] == str(len(pids)):
            self.note(None, f"{len(pids)} statements wait for locks")
        return row[0] == str(len(pids))

    def note(self, life: Life | None, what: str) -> None:
        self.trace.append(f"{self.clock.elapsed:.6f} {life} {what}")

    def submit(self, session: "Session", unit: Unit) -> None:
        self._queue.append((session, unit))
        self.pump()

    def pump(self) -> None:
        """Let go to the server what may; in a serial run nothing does while the server says goodbye to somebody."""
        if self.serial and any(session.is_leaving for session in self.sessions):
            return
        for waiting in list(self._queue):
            session, unit = waiting
            if session.is_closed:
                self._queue.remove(waiting)
            elif not self.serial or self._holder in (None, session):
                self._queue.remove(waiting)
                self._holder = session if self.serial else None
                session.forward(unit)

    def let_go(self, session: "Session") -> None:
        if self._holder is session:
            self._holder = None
            self.pump()

    def tell_clock(self) -> None:
        """Have the database's clock say what time it is."""
        now = self.clock.database_microseconds()
        if now != self._told:
            self._told = now
            self.control.query(f"SELECT setval('chaos_clock', {now})")

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        return sock

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
        self.is_closed = False  # for the client
        self.status = b"I"
        self._client: Any = None
        self._server: Any = None
        self._started = False
        self._ready = False
        self._buffer = bytearray()
        self._statements: dict[str, str] = {}
        self._gathering = Unit()
        self._forwarded: Unit | None = None
        self._reply = bytearray()
        self._leaving = False
        self._held: Unit | None = None
        self._is_open = False  # the server has begun with something that no Sync has ended
        self._error = b""  # to be told instead of the next answer

    @property
    def is_busy(self) -> bool:
        return self._server is not None and (self._forwarded is not None or not self._ready or self._leaving)

    @property
    def is_leaving(self) -> bool:
        return self._leaving and self._server is not None

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
        whole = bytes(self._buffer[:size])
        del self._buffer[:size]
        if code == wire.SSL:
            self._client.write(b"N")
            return False
        if code == wire.CANCEL:
            self._cancel(whole, int.from_bytes(body[:4]))
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
        # To connect takes its turn like a statement.
        self.proxy.submit(self, Unit(data=bytearray(wire.startup(fields)), ends=b"0", sql="connect"))
        return True

    def _connect(self) -> None:
        sock = self.proxy.connect()
        sock.setblocking(False)
        self.proxy.loop.outside.add(sock.fileno())
        self._server = outside(self.proxy.loop._make_socket_transport, sock, _Server(self, sock.fileno()))

    def _cancel(self, whole: bytes, pid: int) -> None:
        for session in self.proxy.sessions:
            if session.pid == pid and session._held is not None:
                session._held.cancelled = True
                session._refuse(session._held, "57014", "canceling statement due to user request")
            elif session.pid == pid and session.is_busy:
                sock = self.proxy.connect()
                sock.sendall(whole)
                sock.recv(1)
                sock.close()
        self._client.close()

    def _take(self, kind: bytes, whole: bytes) -> None:
        unit = self._gathering
        unit.data += whole
        if kind == b"P":
            name, sql, *_ = whole[5:].split(b"\0", 2)
            self._statements[name.decode()] = unit.sql = sql.decode()
        elif kind == b"B":
            unit.sql = self._statements.get(whole[5:].split(b"\0", 2)[1].decode(), "")
        elif kind == b"Q":
            unit.sql = whole[5:-1].decode()
        elif kind == b"X":
            self._client.close()
            self._close()
            return
        if kind in (b"S", b"H", b"Q", b"c", b"f"):
            unit.ends = kind
            self._gathering = Unit()
            self._submit(unit)

    def _submit(self, unit: Unit) -> None:
        proxy = self.proxy
        fault = unit.fault = proxy.decide(self, unit) if self.life is not None else None
        proxy.statements[unit.name] += 1
        proxy.note(self.life, f"{unit.name} {unit.ends.decode()} {fault.kind if fault else ''}")
        if fault is not None:
            proxy.faults.append((proxy.clock.elapsed, f"{self.life} {unit.name} {fault.kind} {fault.sqlstate}"))
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
        self._held = None
        if not self.is_closed and not unit.cancelled:
            self.proxy.submit(self, unit)

    def _refuse(self, unit: Unit, sqlstate: str, text: str) -> None:
        """Answer with an error in place of the server, which has to forget what was prepared for this."""
        if self.is_closed:
            return
        self._held = None
        self._error = wire.error(sqlstate, text)
        if self._is_open and unit.ends == b"S":
            self.proxy.submit(self, Unit(data=bytearray(wire.message(b"S", b"")), ends=b"S", sql=unit.sql))
        else:
            self._tell_error(b"I" if self.status == b"I" else b"E")

    def _tell_error(self, status: bytes) -> None:
        self.status = status
        reply, self._error = self._error + wire.ready(status), b""
        self._tell(reply)

    def forward(self, unit: Unit) -> None:
        self.proxy.tell_clock()
        if self._server is None:
            self._connect()
        self._forwarded = unit
        self._reply = bytearray()
        self._server.write(bytes(unit.data))

    # The server.

    def answered(self, kind: bytes, whole: bytes) -> None:
        if kind == b"A":
            return
        if not self._ready:
            if kind == b"K":
                self.pid = int.from_bytes(whole[5:9])
            self._reply += whole
            if kind == b"Z":
                self._ready, self._forwarded = True, None
                self._tell(bytes(self._reply))
                if self._leaving:
                    self._terminate()
                else:
                    self.proxy.let_go(self)
            return
        unit = self._forwarded
        if unit is None:
            self._tell(whole)  # nobody asked: it says why it ends
            return
        self._reply += whole
        if kind == b"Z":
            self.status = whole[5:6]
        elif (unit.ends != b"H" or kind not in (b"T", b"n", b"E")) and kind != b"G":
            return
        self._forwarded = None
        self._is_open = unit.ends == b"H"
        if self._error and not self._leaving:
            self._tell_error(b"I" if self.status == b"I" else b"E")
            if self.status == b"I":
                self.proxy.let_go(self)
            return
        self._answer(unit, kind)

    def _answer(self, unit: Unit, kind: bytes) -> None:
        reply, fault = bytes(self._reply), unit.fault
        if kind == b"Z" and self.status == b"I" and "LISTEN" in unit.sql:
            self.channels |= {channel for channel in CHANNELS if channel in unit.sql}
        if kind == b"Z" and ("pg_notify" in unit.sql or unit.name.startswith("hints.")):
            self.proxy.hint(CHANNELS if unit.name.startswith("hints.") else CHANNELS[1:])
        if self._leaving:
            self._terminate()
        elif fault is not None and fault.kind == "after":
            self.cut()
        elif fault is not None and fault.kind == "torn":
            self._tell(reply[: len(reply) // 2])
            self.cut(abort=False)
        else:
            self._tell(reply)
        if kind == b"Z" and self.status == b"I" and not self._leaving:
            self.proxy.let_go(self)

    def _tell(self, data: bytes) -> None:
        if not self.is_closed:
            self._client.write(data)

    def notify(self, channel: str) -> None:
        if not self.is_closed and self._ready:
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
        """The client is gone: the server finishes what it is at, and learns of it then."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._server is None:
            self.proxy.sessions.remove(self)
            return
        self._leaving = True
        if self._forwarded is None:
            self._terminate()

    def _terminate(self) -> None:
        if self._server is not None:
            self._server.write(wire.message(b"X", b""))

    def server_lost(self) -> None:
        self._server = None
        if not self.is_closed:
            if self._reply and not self._ready:
                self._tell(bytes(self._reply))  # why nobody is let in
            self.is_closed = True
            self._client.close()
        self.proxy.sessions.remove(self)
        self.proxy.let_go(self)
        self.proxy.pump()


class _Server(asyncio.Protocol):
    """What the server says."""

    def __init__(self, session: Session, fd: int) -> None:
        self._session = session
        self._fd = fd
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for kind, whole in wire.split(self._buffer):
            self._session.answered(kind, whole)

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.proxy.loop.outside.discard(self._fd)
        self._session.server_lost()

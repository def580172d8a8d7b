"""Sessions of Postgres, as the proxy has them: each serves one client after the other, for as long as a run lasts.

To begin a session, to read of all tables in it and to plan a statement cost the server more than most of what is asked,
and clients come and go in a run as they never do in life. So a session goes back when its client is gone, as it would
behind a pooler: what the client left behind is ended, and what the server has learned is kept. Who acts as somebody
else, or has other settings, has another session.
"""

import hashlib
import pickle
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulation import wire
from simulation.wire import Backend


@dataclass(eq=False, kw_only=True)
class Statement:
    """What clients prepare, under one name in each session of the server."""

    name: bytes
    parse: bytes  # the message that prepares it
    about: bytes = b""  # what the server says of it, once it has been asked: parameters and columns


@dataclass(kw_only=True)
class Unit:
    """What a client sends until it waits for an answer."""

    data: bytearray = field(default_factory=bytearray)  # for the server, but for what `needs` prepares
    kinds: bytes = b""  # of all messages
    needs: list[Statement] = field(default_factory=list)
    sql: str = ""
    fault: Any = None
    cancelled: bool = False

    @property
    def ends(self) -> bytes:
        return self.kinds[-1:]

    @property
    def writes(self) -> bool:
        return any(word in self.sql for word in ("INSERT", "UPDATE", "DELETE", "COMMIT"))


NO_MORE_ROWS: Final = Unit(data=bytearray(wire.message(b"f", b"canceled\0")), kinds=b"f", sql="COPY")


def query(sql: str) -> Unit:
    return Unit(data=bytearray(wire.message(b"Q", sql.encode() + b"\0")), kinds=b"Q", sql=sql)


class Session:
    """One session of the server."""

    def __init__(self, directory: Path, fields: tuple[tuple[str, str], ...]) -> None:
        self.fields = fields
        self.is_closed = False
        self.status = b"I"
        self.is_copying = False  # it waits for rows, and for nothing else
        self._told = -1  # what its clock says
        self._prepared = set[bytes]()
        self._heard = deque[tuple[bytes, bytes]]()
        self._backend = Backend(directory)
        self._backend.send(wire.startup(dict(fields)))
        self.greeting = self._until_ready()

    def ask(self, unit: Unit, now: int) -> bytes:
        """Return what the server says to a unit, at a time by its clock."""
        if (unit.ends in (b"c", b"f")) is not self.is_copying:
            return b""  # rows of a COPY that was refused, or what else is sent in the middle of one: nobody answers
        clock = b"" if self.is_copying or self.status == b"E" or now == self._told else _clock(now)
        fresh = {one.name: one for one in unit.needs if one.name not in self._prepared}
        self._backend.send(clock + b"".join(one.parse for one in fresh.values()) + unit.data)
        if clock:
            self._until_ready()
            self._told = now
        return self._learned(fresh, self._until_ready())

    def _learned(self, fresh: Iterable[bytes], reply: bytes) -> bytes:
        """Keep in mind what is prepared now; the client has heard of that already."""
        for name in fresh:
            if not reply.startswith(b"1"):
                break
            self._prepared.add(name)
            reply = reply[5:]
        return reply

    def describe(self, statement: Statement, now: int) -> bytes:
        """Return what parameters and columns a statement has, or why it cannot be prepared."""
        data = bytearray(wire.message(b"D", b"S" + statement.name + b"\0") + wire.message(b"S", b""))
        return self.ask(Unit(data=data, kinds=b"DS", needs=[statement]), now)[:-6]  # the client has not asked for `Z`

    def _until_ready(self) -> bytes:
        reply = bytearray()
        while self._heard or self._hears():
            kind, whole = self._heard.popleft()
            if kind != b"A":
                reply += whole
            if kind == b"Z":
                if whole[5:6] == b"I" != self.status:
                    self._told = -1  # the end of a transaction may have taken it back
                self.status, self.is_copying = whole[5:6], False
                return bytes(reply)
            if kind == b"G":
                self.is_copying = True
                return bytes(reply)
        self.close()
        return bytes(reply)

    def _hears(self) -> bool:
        self._heard += self._backend.receive()
        return bool(self._heard)

    def tidy(self) -> None:
        """End what a client has left behind: its COPY, its transaction, and what it holds and listens to."""
        if self.is_copying:
            self.ask(NO_MORE_ROWS, self._told)
        if self.status != b"I":
            self.ask(query("ROLLBACK"), self._told)
        self.ask(query("SELECT pg_advisory_unlock_all(); UNLISTEN *"), self._told)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._backend.close()


class Backends:
    """All sessions of a run that serve nobody just now, and the statements that they know.

    What the server says about statements and types is the same in every run, so it is kept in a file beside the server.
    """

    def __init__(self, directory: Path, memory: Path) -> None:
        self._directory = directory
        self._memory = memory
        self._idle = defaultdict[tuple[tuple[str, str], ...], list[Session]](list)
        self._statements: dict[bytes, Statement] = {}
        self.types: dict[bytes, bytes] = {}  # what asyncpg asks about them on each new connection, and the answers
        if memory.exists():
            self._statements, self.types = pickle.loads(memory.read_bytes())

    def remember(self) -> None:
        """Keep what was learned for the runs to come."""
        self._memory.write_bytes(pickle.dumps((self._statements, self.types)))

    def take(self, fields: dict[str, str]) -> Session:
        key = tuple(sorted(fields.items()))
        idle = self._idle[key]
        return idle.pop() if idle else Session(self._directory, key)

    def give_back(self, session: Session) -> None:
        if not session.is_closed:
            session.tidy()
            self._idle[session.fields].append(session)

    def statement(self, text: bytes) -> Statement:
        """Return what stands for a statement, by what follows its name in the message that prepares it."""
        if text not in self._statements:
            name = b"s" + hashlib.sha256(text).hexdigest()[:16].encode()
            self._statements[text] = Statement(name=name, parse=wire.message(b"P", name + b"\0" + text))
        return self._statements[text]


def _clock(now: int) -> bytes:
    return wire.message(b"Q", b"SET chaos.now = %d\0" % now)

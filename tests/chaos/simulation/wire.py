"""Postgres by hand: one plain connection for the run itself, and the bytes that the proxy reads and writes."""

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

STARTUP = 196608
CANCEL = 80877102
SSL = 80877103
PATIENCE = 120.0  # real seconds for one answer: one session at a time is served, so nothing waits for a lock


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(fields: dict[str, str]) -> bytes:
    body = struct.pack("!I", STARTUP)
    body += b"".join(f"{name}\0{value}\0".encode() for name, value in fields.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def startup_fields(body: bytes) -> dict[str, str]:
    words = body.decode().split("\0")
    return dict(zip(words[0::2], words[1::2], strict=False))


def error(sqlstate: str, text: str, severity: str = "ERROR") -> bytes:
    fields = f"S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0"
    return message(b"E", fields.encode())


def ready(status: bytes) -> bytes:
    return message(b"Z", status)


def split(buffer: bytearray) -> list[tuple[bytes, bytes]]:
    """Take whole messages out of a buffer: (kind, all bytes)."""
    found = []
    at = 0
    while len(buffer) - at >= 5:
        end = at + 1 + int.from_bytes(buffer[at + 1 : at + 5])
        if len(buffer) < end:
            break
        found.append((bytes(buffer[at : at + 1]), bytes(buffer[at:end])))
        at = end
    del buffer[:at]
    return found


class SilentError(Exception):
    """Postgres did not answer."""


class Backend:
    """A connection that blocks: what Postgres makes of its bytes is there before anything else goes on."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(directory / ".s.PGSQL.5432"))
        self._buffer = bytearray()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> list[tuple[bytes, bytes]]:
        """Return the next messages, at least one; none if the server has closed the connection."""
        while not (found := split(self._buffer)):
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise SilentError(f"Postgres said nothing for {PATIENCE:.0f} s") from None
            if not data:
                return []
            self._buffer += data
        return found

    def close(self) -> None:
        """Say goodbye, and wait until the server has let go of all that the session held."""
        try:
            self._socket.sendall(message(b"X", b""))
            while self._socket.recv(65536):
                pass
        except ConnectionError:
            pass
        self._socket.close()


class Control:
    """A session of the run itself: for the clock, and for looking on."""

    def __init__(self, directory: Path, database: str, schema: str = "kapsel") -> None:
        self._backend = Backend(directory)
        options = {"user": "postgres", "database": database, "search_path": f"{schema}, pg_catalog", "timezone": "UTC"}
        self._backend.send(startup(options | {"client_min_messages": "warning"}))
        self._answer()

    def query(self, sql: str) -> list[Sequence[str | None]]:
        """Run statements; return the rows as text."""
        self._backend.send(message(b"Q", sql.encode() + b"\0"))
        return self._answer()

    def _answer(self) -> list[Sequence[str | None]]:
        rows: list[Sequence[str | None]] = []
        problem = ""
        while messages := self._backend.receive():
            for kind, whole in messages:
                if kind == b"D":
                    rows.append(_row(whole))
                elif kind == b"E":
                    problem = whole[5:].decode(errors="replace").replace("\0", " ")
            if messages[-1][0] == b"Z":
                break
        if problem or not messages:
            raise RuntimeError(problem or "Postgres closed the connection")
        return rows

    def close(self) -> None:
        self._backend.close()


def _row(whole: bytes) -> list[str | None]:
    count = int.from_bytes(whole[5:7])
    at, values = 7, list[str | None]()
    for _ in range(count):
        size = int.from_bytes(whole[at : at + 4], signed=True)
        at += 4
        values.append(None if size < 0 else whole[at : at + size].decode())
        at += max(size, 0)
    return values

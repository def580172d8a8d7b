"""Postgres by hand: one plain connection for the run itself, and the bytes that the proxy reads and writes."""

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

STARTUP = 196608
CANCEL = 80877102
SSL = 80877103


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


class Control:
    """A connection that blocks: for the clock, and for looking on."""

    def __init__(self, directory: Path, database: str, schema: str = "kapsel") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(directory / ".s.PGSQL.5432"))
        options = {"user": "postgres", "database": database, "search_path": f"{schema}, pg_catalog", "timezone": "UTC"}
        self._socket.sendall(startup(options | {"client_min_messages": "warning"}))
        self._buffer = bytearray()
        self._answer()

    def query(self, sql: str) -> list[Sequence[str | None]]:
        """Run statements; return the rows as text."""
        self._socket.sendall(message(b"Q", sql.encode() + b"\0"))
        return self._answer()

    def _answer(self) -> list[Sequence[str | None]]:
        rows: list[Sequence[str | None]] = []
        problem = ""
        while True:
            for kind, whole in split(self._buffer):
                if kind == b"D":
                    rows.append(_row(whole))
                elif kind == b"E":
                    problem = whole[5:].decode(errors="replace").replace("\0", " ")
                elif kind == b"Z":
                    if problem:
                        raise RuntimeError(problem)
                    return rows
            data = self._socket.recv(65536)
            if not data:
                raise RuntimeError(problem or "Postgres closed the connection")
            self._buffer += data

    def close(self) -> None:
        self._socket.sendall(message(b"X", b""))
        self._socket.close()


def _row(whole: bytes) -> list[str | None]:
    count = int.from_bytes(whole[5:7])
    at, values = 7, list[str | None]()
    for _ in range(count):
        size = int.from_bytes(whole[at : at + 4], signed=True)
        at += 4
        values.append(None if size < 0 else whole[at : at + size].decode())
        at += max(size, 0)
    return values

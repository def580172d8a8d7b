"""What a child process writes: kept in a file of bounded size, and its warnings shown to the person.

Called by `children`. The components write one JSON object a line, Postgres writes its own lines.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 10_000_000  # then the file becomes <name>.log.1, and the one before it is gone
MAX_LINE_BYTES: Final = 65_536
REPEAT_SECONDS: Final = 30.0  # the same line is shown once in this time: a database that is away concerns everybody
REMEMBERED: Final = 100

_SHOWN_LEVELS: Final = frozenset({"warning", "error", "critical"})
_POSTGRES_LEVELS: Final = ("WARNING:", "ERROR:", "FATAL:", "PANIC:")
# What Postgres says while it stops or recovers is no news beside what the supervisor says of it.
_EXPECTED: Final = ("terminating ", "the database system is ")

# Of a traceback the last line is for a person; the rest is in the file.
_TRACEBACK: Final = (" ", "Traceback (most", "During handling of", "The above exception was")


class ChildLog:
    """The log of one child over all its lives."""

    def __init__(
        self, path: Path, show: Callable[[str], None], *, show_all: bool = False, max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self.path = path
        self.last_complaint = ""  # the last line that was worth showing: it often says why the child ended
        self._name = path.stem
        self._show = show
        self._show_all = show_all
        self._max_bytes = max_bytes
        self._shown: OrderedDict[str, float] = OrderedDict()
        self._rest = b""
        self._size = path.stat().st_size if path.exists() else 0
        self._file = path.open("ab", buffering=0)

    def feed(self, chunk: bytes) -> None:
        """Take what the child wrote, wherever it was cut."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._line(line[:MAX_LINE_BYTES])

    def end(self) -> None:
        """The child is gone: what is left is its last line."""
        if self._rest:
            self._line(self._rest)
        self._rest = b""

    def close(self) -> None:
        """Nothing more will come."""
        self.end()
        self._file.close()

    def _line(self, line: bytes) -> None:
        self._keep(line)
        text = line.decode(errors="replace")
        complaint = complaint_in(text)
        if complaint:
            self.last_complaint = complaint
        if self._show_all:
            self._show(f"{self._name}: {text}")
        elif complaint and self._is_new(complaint):
            self._show(f"{self._name}: {complaint}")

    def _keep(self, line: bytes) -> None:
        # A full disk must not stop the reading: the child would hang on its next line.
        try:
            if self._size > self._max_bytes:
                self._file.close()
                self.path.replace(self.path.with_suffix(".log.1"))
                self._file = self.path.open("ab", buffering=0)
                self._size = 0
            self._size += self._file.write(line + b"\n")
        except OSError as error:
            lost = f"lines are missing in {self.path}: {error.strerror}"
            if self._is_new(lost):
                self._show(lost)

    def _is_new(self, complaint: str) -> bool:
        now = time.monotonic()
        last = self._shown.pop(complaint, None)
        fresh = last is None or now - last >= REPEAT_SECONDS
        self._shown[complaint] = now if fresh or last is None else last
        if len(self._shown) > REMEMBERED:
            self._shown.popitem(last=False)
        return fresh


def complaint_in(line: str) -> str:
    """Return what a person should see of a line, or nothing."""
    if line.startswith("{"):
        try:
            record = json.loads(line)
        except ValueError:
            return line
        if str(record.get("level", "")).lower() not in _SHOWN_LEVELS:
            return ""
        error = f": {record['error']}" if record.get("error") else ""
        where = f"{record['destination']} " if record.get("destination") else ""
        return f"{where}{record.get('message', '')}{error}".partition("\n")[0]
    for level in _POSTGRES_LEVELS:
        _, found, message = line.partition(level)
        if found:
            return "" if message.strip().startswith(_EXPECTED) else message.strip()
    is_postgres = "LOG:" in line or "HINT:" in line or "DETAIL:" in line or "STATEMENT:" in line or "CONTEXT:" in line
    return "" if is_postgres or line.startswith(_TRACEBACK) else line.strip()

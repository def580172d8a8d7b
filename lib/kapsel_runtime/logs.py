"""Logs: one JSON object a line on stderr, with what the work under way has bound to itself.

`process.run` configures it; everybody else uses the standard logging and, around a piece of work, `bind`. It never
raises, whatever it is given, and never writes a secret: values of a secret type stay masked, bytes are only counted,
and passwords in URLs are cut out. Where the lines go after stderr is left to whoever runs the process.
"""

import contextvars
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, TextIO

Level = Literal["debug", "info", "warning", "error"]

# What is bound, and what was bound before: much is bound, and little of it is ever logged.
_Bound = tuple["_Bound", Mapping[str, object]] | None
_bound: contextvars.ContextVar[_Bound] = contextvars.ContextVar("kapsel_log_fields", default=None)
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_USER_INFO: Final = re.compile(r'(://[^\s/@:"\\]*:)[^\s/@"]+@')
_PASSWORD: Final = re.compile(r'([?&]password=)[^\s&"\\]+', re.IGNORECASE)

logger = logging.getLogger(__name__)


def configure(component: str, instance: str, level: Level) -> None:
    """Send every log record, warning and stray exception of this process as JSON lines to stderr."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(Lines(component, instance))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    # Nothing of these is written, so nothing of them need be collected for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


class bind:  # noqa: N801 - reads as a verb: with bind(event_id=...):
    """Puts `fields` on each record that is logged inside, in this task and in those it starts there."""

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def __enter__(self) -> Self:
        self._token = _bound.set((_bound.get(), self._fields))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _bound.reset(self._token)


class Lines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, component: str, instance: str) -> None:
        super().__init__()
        self._fixed = {"component": component, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; if a value cannot be encoded, a line of the values' plain texts."""
        fields = self._fields(record)
        try:
            line = _encode(fields)
        except Exception:  # noqa: BLE001 - a value of any kind may fail in any way, and logging must not
            line = _encode({_text(key): _text(value) for key, value in fields.items()})
        return _without_passwords(line)

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = {
            "ts": moment.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            **self._fixed,
            "message": _message(record),
            "logger": record.name,
        }
        for key, value in _together(_bound.get()).items():
            fields.setdefault(key, value)
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                fields.setdefault(key, value)
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = one_line(record.exc_info[1])
            fields["stack"] = "".join(traceback.format_exception(record.exc_info[1]))
        elif record.stack_info:
            fields["stack"] = record.stack_info
        return fields


def _together(bound: _Bound) -> Mapping[str, object]:
    """Return what is bound; of one name what was bound last."""
    return {} if bound is None else {**_together(bound[0]), **bound[1]}


def one_line(error: BaseException) -> str:
    """Return type and message of an error, or of each error in a group."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(one_line(member) for member in error.exceptions)
    return f"{type(error).__name__}: {' '.join(_text(error).split())}".removesuffix(": ")


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Drop the record: when stderr is gone there is nobody left to tell."""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or whose text cannot be made
        return _text(record.msg)


def _jsonable(value: Any) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return value.isoformat() if isinstance(value, datetime) else str(value)


# ASCII alone, so that no encoding of stderr and no lone surrogate can break a line.
_encode: Final = json.JSONEncoder(default=_jsonable, allow_nan=False, separators=(",", ":")).encode


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - somebody's __str__
        return f"<{type(value).__name__}>"


def _without_passwords(line: str) -> str:
    if "://" in line:
        line = _USER_INFO.sub(r"\1***@", line)
    return _PASSWORD.sub(r"\1***", line) if "assword=" in line else line


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    logger.error("a thread failed", exc_info=failure.exc_value)


def _unraisable(failure: "sys.UnraisableHookArgs") -> None:
    logger.error("an error could not be raised", exc_info=failure.exc_value)

"""Query parameters and ids in paths, read strictly: what is not understood is refused in words, never ignored.

A typing error in a filter would otherwise show everything, and look like an answer.
"""

import base64
import binascii
import difflib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from aiohttp import web
from multidict import MultiMapping

from kapsel_console.errors import ProblemError
from kapsel_resources import durations
from kapsel_store import turns
from kapsel_store.reasons import FAULTS, Fault, instead
from kapsel_store.states import State

DEFAULT_LIMIT: Final = 50
MOST: Final = 200
LATEST: Final = timedelta(days=3650)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_WHOLE: Final = re.compile(r"0|[1-9]\d{0,15}", re.ASCII)

T = TypeVar("T")


class Parameters:
    """The query of one request, of which the handler takes the parameters that it knows."""

    def __init__(self, query: MultiMapping[str], *known: str) -> None:
        for name in query:
            if name not in known:
                raise ProblemError("parameter_unknown", _unknown(name, known))
            if len(query.getall(name)) > 1:
                raise ProblemError("parameter_invalid", f"{name} is given more than once")
            if "\0" in query[name]:
                # Postgres has no text with one, and would refuse the question.
                raise ProblemError("parameter_invalid", f"{name} is {query[name][:100]!r}; allowed: text without NUL")
        self._query = query

    def text(self, name: str) -> str | None:
        """Return a parameter as it stands."""
        return self._query.get(name)

    def id(self, name: str) -> UUID | None:
        """Return an id."""
        return self._read(name, _uuid, "an id such as 0190f5fe-7c00-7a00-8000-000000000001")

    def limit(self) -> int:
        """Return how many items a page may have."""
        return self._read("limit", lambda text: _between(text, 1, MOST), f"a number from 1 to {MOST}") or DEFAULT_LIMIT

    def size(self, name: str) -> int | None:
        """Return a number of leaves."""
        return self._read(name, lambda text: _between(text, 0, 2**53 - 1), "a number of leaves")

    def since(self, now: datetime) -> datetime | None:
        """Return the moment that `since` means: RFC 3339, or so long before `now`."""
        allowed = "a duration such as 15m or 1h30m, or a time such as 2026-01-31T12:00:00Z (+ is written %2B)"
        return self._read("since", lambda text: _moment(text, now), allowed)

    def states(self) -> list[State] | None:
        """Return the states asked for, separated by commas."""
        return self._read(
            "state",
            lambda text: [State(part) for part in text.split(",")],
            "one or more of " + ", ".join(State) + ", separated by commas",
        )

    def faults(self) -> list[Fault] | None:
        """Return the faults asked for, separated by commas."""
        return self._read(
            "fault",
            lambda text: [_fault(part) for part in text.split(",")],
            "one or more of " + ", ".join(FAULTS[1:]) + ", separated by commas",
        )

    def reasons(self) -> list[str] | None:
        """Return the reason codes asked for, separated by commas, classes of statuses among them."""
        text = self._query.get("reason")
        for code in [] if text is None else text.split(","):
            if (allowed := instead(code)) is not None:
                raise ProblemError("parameter_invalid", f"reason is {code[:100]!r}; allowed: {allowed}")
        return None if text is None else text.split(",")

    def late(self) -> timedelta | None:
        """Return from which age on what waits is undelivered."""
        return self._read("late", _late, f"a duration such as 1m or 1h30m, up to {LATEST // _HOUR}h")

    def destination(self) -> tuple[str, str, str] | None:
        """Return namespace, endpoint and name of a destination."""
        return self._read("destination", _destination, "namespace/endpoint/name")

    def endpoint(self) -> tuple[str, str] | None:
        """Return namespace and name of an endpoint."""
        return self._read("endpoint", _endpoint, "namespace/name")

    def id_cursor(self) -> UUID | None:
        """Return the id that a page of newest first begins below."""
        return self._read("cursor", lambda text: UUID(bytes=_unarmoured(text)), _CURSOR)

    def name_cursor(self) -> tuple[str, str]:
        """Return namespace and name that a page by name begins after."""
        return self._read("cursor", lambda text: _endpoint(_unarmoured_text(text)), _CURSOR) or ("", "")

    def key_cursor(self) -> tuple[str, str, int]:
        """Return namespace, name and version of the key that a page begins after."""
        return self._read("cursor", lambda text: _key(_unarmoured_text(text)), _CURSOR) or ("", "", 0)

    def replay_cursor(self) -> tuple[str, str, datetime]:
        """Return namespace, name and time of the replay that a page begins after."""
        found = self._read("cursor", lambda text: _key(_unarmoured_text(text)), _CURSOR)
        return ("", "", _EPOCH) if found is None else (*found[:2], _EPOCH + found[2] * _MICROSECOND)

    def line_cursor(self) -> turns.Line:
        """Return the order key that a page begins after."""
        return self._read("cursor", lambda text: _line(_unarmoured(text)), _CURSOR) or turns.BEFORE_ALL

    def _read(self, name: str, parse: Callable[[str], T], allowed: str) -> T | None:
        text = self._query.get(name)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError:
            raise ProblemError("parameter_invalid", f"{name} is {text[:100]!r}; allowed: {allowed}") from None


_CURSOR: Final = "what a page gave as next"


def path_id(request: web.Request) -> UUID:
    """Return the id in the path."""
    text = request.match_info["id"]
    try:
        return _uuid(text)
    except ValueError:
        raise ProblemError("parameter_invalid", f"{text[:100]!r} is not an id; an id is a UUID in lower case") from None


def id_cursor(last: UUID) -> str:
    """Return the cursor of the page below an id."""
    return _armoured(last.bytes)


def name_cursor(namespace: str, name: str) -> str:
    """Return the cursor of the page after a name."""
    return _armoured(f"{namespace}/{name}".encode())


def key_cursor(namespace: str, name: str, version: int) -> str:
    """Return the cursor of the page after a version of a key, whose name has slashes of its own."""
    return _armoured(f"{namespace}/{name}/{version}".encode())


def replay_cursor(namespace: str, name: str, declared_at: datetime) -> str:
    """Return the cursor of the page after a replay, of which there may be several by one name."""
    return key_cursor(namespace, name, (declared_at - _EPOCH) // _MICROSECOND)


def line_cursor(line: turns.Line) -> str:
    """Return the cursor of the page after an order key."""
    return _armoured(line[0].bytes + line[1])


def _line(joined: bytes) -> turns.Line:
    return UUID(bytes=joined[:16]), joined[16:]


def _unknown(name: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"{name[:100]!r} is not known: this path takes no query parameters"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{name[:100]!r} is not known; {hint}this path takes {', '.join(sorted(known))}"


def _uuid(text: str) -> UUID:
    found = UUID(text)
    if str(found) != text:  # one spelling for each id
        raise ValueError(text)
    return found


def _between(text: str, least: int, most: int) -> int:
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(text)
    return int(text)


def _moment(text: str, now: datetime) -> datetime:
    if _RFC3339.fullmatch(text):
        return max(datetime.fromisoformat(text.upper()), _EPOCH)
    try:
        return max(now - durations.parse(text), _EPOCH)
    except OverflowError:
        return _EPOCH


def _late(text: str) -> timedelta:
    found = durations.parse(text)
    if found > LATEST:
        raise ValueError(text)
    return found


def _endpoint(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError(text)
    return namespace, name


def _destination(text: str) -> tuple[str, str, str]:
    endpoint, _, name = text.rpartition("/")
    if not name:
        raise ValueError(text)
    return (*_endpoint(endpoint), name)


def _fault(text: str) -> Fault:
    for fault in FAULTS[1:]:
        if fault == text:
            return fault
    raise ValueError(text)


def _key(text: str) -> tuple[str, str, int]:
    where, _, version = text.rpartition("/")
    namespace, _, name = where.partition("/")
    return namespace, name, _between(version, 1, 2**53 - 1)


def _armoured(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _unarmoured(text: str) -> bytes:
    if len(text) > 1024 or not text.isascii():
        raise ValueError(text)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def _unarmoured_text(text: str) -> str:
    found = _unarmoured(text).decode()
    if "\0" in found:
        raise ValueError(text)
    return found

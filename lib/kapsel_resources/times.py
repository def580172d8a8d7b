"""Points in time as RFC 3339 writes them, read strictly and written in UTC.

Kubernetes' `format: date-time` is this syntax, so manifests and statuses speak it too.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

LONGEST: Final = 64
_ALLOWED: Final = "a time with its offset, such as 2026-03-01T09:30:00Z"
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def text(time: datetime) -> str:
    """Return a time as conditions have it: in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _validate(value: object) -> object:
    parsed = value if isinstance(value, datetime) else _parse(value)
    if parsed.tzinfo is None:
        raise _broken(f"{value!s} has no offset from UTC")
    try:
        return parsed.astimezone(UTC)
    except OverflowError as error:
        raise _broken(f"{value!s} is before the year 1 or after the year 9999 in UTC") from error


def _parse(value: object) -> datetime:
    if not isinstance(value, str) or len(value) > LONGEST or not _RFC_3339.fullmatch(value):
        raise _broken(f"{value!r} is not a time")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise _broken(f"{value!r} is not a time") from error


def _broken(wrong: str) -> PydanticCustomError:
    return PydanticCustomError("kapsel", "{wrong}", {"wrong": wrong, "allowed": _ALLOWED})


Time = Annotated[
    datetime,
    BeforeValidator(_validate),
    PlainSerializer(text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": LONGEST}),
]

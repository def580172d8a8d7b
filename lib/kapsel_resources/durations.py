"""Durations as Go writes them ("1h30m", "250ms"), read exactly.

Kubernetes' `format: duration` and CEL speak this syntax, so manifests do too. There is no unit `d`: a day is not always
24 hours. What is finer than a microsecond is refused, because it could not be kept.
"""

import re
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

LONGEST: Final = 64
_MICROSECONDS: Final[dict[str, Fraction]] = {
    "ns": Fraction(1, 1000),
    "us": Fraction(1),
    "µs": Fraction(1),  # U+00B5, the micro sign
    "μs": Fraction(1),  # U+03BC, the Greek letter
    "ms": Fraction(1000),
    "s": Fraction(1_000_000),
    "m": Fraction(60_000_000),
    "h": Fraction(3_600_000_000),
}
_PART: Final = re.compile(r"([0-9]+(?:[.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
FORM: Final = f"^(0|({_PART.pattern})+)$"
_ALLOWED: Final = "a duration such as 500ms, 30s, 15m or 1h30m (units: ms, s, m, h; a day is 24h)"


def parse(text: str) -> timedelta:
    """Return the duration that a Go duration string means; ValueError says what is wrong with it."""
    if text == "0":
        return timedelta(0)
    if len(text) > LONGEST or not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:LONGEST]!r} is not a duration")
    total = sum(
        (Fraction(number.rstrip(".")) * _MICROSECONDS[unit] for number, unit in _PART.findall(text)), Fraction()
    )
    if total.denominator != 1:
        raise ValueError(f"{text!r} is finer than a microsecond")
    try:
        return timedelta(microseconds=int(total))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration that can be kept") from None


def text(duration: timedelta) -> str:
    """Return the shortest Go duration string in whole units: 1h30m, 250ms, 0s."""
    rest = duration // timedelta(microseconds=1)
    parts = []
    for unit in ("h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, int(_MICROSECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _validate(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("kapsel", "{wrong}", {"wrong": f"{value!r} has no unit", "allowed": _ALLOWED})
    try:
        return parse(value)
    except ValueError as error:
        raise PydanticCustomError("kapsel", "{wrong}", {"wrong": str(error), "allowed": _ALLOWED}) from error


Duration = Annotated[
    timedelta,
    BeforeValidator(_validate),
    WithJsonSchema({"type": "string", "format": "duration", "maxLength": LONGEST, "pattern": FORM}),
]

"""Readers of the few lexical forms that all formats share, each with exactly one spelling per value.

A reader that accepts two spellings of one value lets two verifiers disagree, and a file change without being noticed.
The caller says which refusal is its own: `error` is raised with a message that begins with `what`.
"""

import binascii
import json
import re
from typing import Any, Final, NoReturn

from kapsel_verifier.errors import VerificationError

MAX_INTEGER: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact (RFC 8785, I-JSON)

_URL_ALPHABET: Final = str.maketrans("+/", "-_")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,15}")

Refusal = type[VerificationError]


class _DuplicateError(ValueError):
    """A JSON object holds one key twice."""


def json_object(data: bytes, what: str, error: Refusal) -> dict[str, Any]:
    """Read one JSON object; refuse doubled keys, floats, NaN, negative integers and those
    beyond 2^53 - 1, and anything but UTF-8."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except _DuplicateError as duplicate:
        raise error(f"{what} has the member {shown(str(duplicate))} twice") from None
    except UnicodeDecodeError:
        raise error(f"{what} is not UTF-8") from None
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is not strict JSON ({_first_line(cause)})") from None
    if type(value) is not dict:
        raise error(f"{what} is not a JSON object")
    return value


def members(value: dict[str, Any], names: tuple[str, ...], what: str, error: Refusal) -> None:
    """Refuse an object whose members are not exactly `names`."""
    for name in names:
        if name not in value:
            raise error(f"{what} has no member {name}")
    for name in value:
        if name not in names:
            raise error(f"{what} has a member {shown(name)} that it may not have")


def same(value: object, constant: str | int) -> bool:
    """Say whether a JSON value is this constant; to Python alone, `true` equals 1."""
    return type(value) is type(constant) and value == constant


def integer(value: object, what: str, error: Refusal) -> int:
    """Take a JSON integer from 0 to 2^53 - 1; a boolean is none."""
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise error(f"{what} is not an integer from 0 to 2^53 - 1")
    return value


def string(value: object, what: str, error: Refusal) -> str:
    """Take a JSON string."""
    if type(value) is not str:
        raise error(f"{what} is not a string")
    return value


def decimal(text: str, what: str, error: Refusal) -> int:
    """Read ASCII digits without sign, space or leading zero, up to 2^53 - 1."""
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_INTEGER:
        raise error(f"{what} is not a decimal from 0 to 2^53 - 1 without leading zeros")
    return int(text)


def hexadecimal(value: object, size: int, what: str, error: Refusal) -> bytes:
    """Read `size` bytes from lower-case hex."""
    if type(value) is not str or len(value) != 2 * size or not _HEX.fullmatch(value):
        raise error(f"{what} is not {size} bytes in lower-case hex")
    return bytes.fromhex(value)


def base64(text: str, what: str, error: Refusal) -> bytes:
    """Read standard base64 (RFC 4648 section 4) with its padding and with zero bits at the end."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise error(f"{what} is not base64") from None
    if to_base64(data) != text:
        raise error(f"{what} is not canonical base64")
    return data


def to_base64(data: bytes) -> str:
    """Write standard base64 (RFC 4648 section 4) with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def to_base64url(data: bytes) -> str:
    """Write base64 in the alphabet of URLs without padding (RFC 4648 section 5), as JSON Web Keys have it."""
    return to_base64(data).translate(_URL_ALPHABET).rstrip("=")


def shown(text: str) -> str:
    """Return text from an untrusted file so that it can neither fill a terminal nor steer it."""
    cut = text if len(text) <= 200 else text[:200] + "..."
    return cut if cut.isascii() and cut.isprintable() else ascii(cut)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise _DuplicateError(key)
        value[key] = item
    return value


def _integer(text: str) -> int:
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_INTEGER:
        raise ValueError("an integer is not from 0 to 2^53 - 1")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:20]} is not an integer")


def _first_line(cause: Exception) -> str:
    return str(cause).splitlines()[0][:100] if str(cause) else type(cause).__name__

"""Readers of the few lexical forms that all formats share, each with exactly one spelling per value.

A reader that accepts two spellings of one value lets two verifiers disagree, and a file change without being noticed.
The caller says which refusal is its own: `error` is raised with a message that begins with `what`.
"""

import binascii
import json
import re
from collections import Counter
from typing import Any, Final

from kapsel_verifier.errors import VerificationError

MAX_INTEGER: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact (RFC 8785, I-JSON)

_URL_ALPHABET: Final = str.maketrans("+/", "-_")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SHOWN_DIGITS: Final = 20
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,15}")

Refusal = type[VerificationError]


class _Fault:
    """What may not stand in a JSON text: a number, or else a member that is there twice."""

    def __init__(self, number: str | None = None) -> None:
        self.number = number


def json_object(data: bytes, what: str, error: Refusal) -> dict[str, Any]:
    """Read one JSON object; refuse doubled keys, floats, NaN, negative integers and those
    beyond 2^53 - 1, and anything but UTF-8."""
    if data.startswith(_BYTE_ORDER_MARK):
        raise error(f"{what} begins with a byte order mark, which JSON does not have")
    faults: list[_Fault] = []
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=lambda pairs: _object(pairs, faults),
            parse_int=lambda text: _integer(text, faults),
            parse_float=lambda text: _no_number(text, faults),
            parse_constant=lambda text: _no_number(text, faults),
        )
    except UnicodeDecodeError as wrong:
        raise error(f"{what} is not UTF-8 at byte {wrong.start}") from None
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is not strict JSON ({_first_line(cause)})") from None
    if faults:
        place, fault = _first_fault(value)
        if fault.number is None:
            raise error(f"{what} has the member {shown(place)} twice")
        number = f"{shown(place) or 'it'} is {fault.number}, which is not an integer from 0 to 2^53 - 1"
        raise error(f"{what} is not strict JSON ({number})")
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


def _object(pairs: list[tuple[str, Any]], faults: list[_Fault]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        value[next(name for name, count in counts.items() if count > 1)] = _noted(_Fault(), faults)
    return value


def _integer(text: str, faults: list[_Fault]) -> int | _Fault:
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_INTEGER:
        return _no_number(text, faults)
    return int(text)


def _no_number(text: str, faults: list[_Fault]) -> _Fault:
    return _noted(_Fault(text if len(text) <= _SHOWN_DIGITS else f"{text[:_SHOWN_DIGITS]}..."), faults)


def _noted(fault: _Fault, faults: list[_Fault]) -> _Fault:
    # Where it stands is not known while the text is read.
    faults.append(fault)
    return fault


def _first_fault(value: Any) -> tuple[str, _Fault]:
    """Return the first fault with where it stands, such as `sth.tree_size` or `inclusion_proof[3]`."""
    # Each place knows the one around it: written out, a list deep within long names would be as many long texts.
    waiting: list[tuple[Any, Any]] = [(None, value)]
    while True:
        place, found = waiting.pop()
        if isinstance(found, _Fault):
            parts: list[str] = []
            while place is not None:
                place, part = place
                parts.append(part)
            return "".join(reversed(parts)).removeprefix("."), found
        if isinstance(found, dict):
            waiting += [((place, f".{name}"), item) for name, item in reversed(found.items())]
        elif isinstance(found, list):
            waiting += [((place, f"[{number}]"), item) for number, item in reversed([*enumerate(found)])]


def _first_line(cause: Exception) -> str:
    return str(cause).splitlines()[0][:100] if str(cause) else type(cause).__name__

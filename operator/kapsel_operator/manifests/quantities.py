"""Quantities as an API server writes them: `0.5` of a CPU comes back as `500m`, `1024Mi` as `1Gi`.

A manifest that is written like that from the start is what is read back later, so nothing differs and nothing is
written again.
"""

import re
from fractions import Fraction
from math import ceil
from typing import Any, Final

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_FINEST: Final = Fraction(1, 1000)  # in lists of resources; what is finer is rounded up


def canonical(quantity: object) -> object:
    """Return a quantity as an API server writes it, and anything else as it is."""
    text = str(quantity) if isinstance(quantity, int) and not isinstance(quantity, bool) else quantity
    matched = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        return quantity
    number, suffix = Fraction(matched[1]), matched[2] or ""
    if suffix in _BINARY[1:]:
        value = number * 1024 ** _BINARY.index(suffix)
        # What is small or no whole number of bytes is written in tens, whatever it was written in.
        if value >= 1024 and value.denominator == 1:
            return _in_steps(value, 1024, dict(enumerate(_BINARY)))
        return _in_tens(value, _DECIMAL)
    if suffix in _DECIMAL:
        return _in_tens(number * Fraction(10) ** _DECIMAL[suffix], _DECIMAL)
    exponents = {f"e{exponent}" if exponent else "": exponent for exponent in range(-9, 19, 3)}
    return _in_tens(number * Fraction(10) ** int(suffix[1:]), exponents)


def resources(requirements: Any) -> Any:
    """Return the resources of a container with all their quantities as an API server writes them."""
    if not isinstance(requirements, dict):
        return requirements
    return {
        key: {name: canonical(quantity) for name, quantity in value.items()} if isinstance(value, dict) else value
        for key, value in requirements.items()
    }


def _in_tens(value: Fraction, suffixes: dict[str, int]) -> str:
    finest = Fraction(ceil(value / _FINEST))
    lowest = {(exponent + 3) // 3: suffix for suffix, exponent in suffixes.items()}
    return _in_steps(finest, 1000, lowest) if finest else "0"


def _in_steps(value: Fraction, base: int, suffixes: dict[int, str]) -> str:
    step = 0
    while value % base == 0 and step + 1 in suffixes:
        value, step = value / base, step + 1
    return f"{value}{suffixes[step]}"

"""What a regular expression costs: to make ready, which the engine does at every evaluation, and to look for in a text.

`expression` asks when it compiles, `cost` at every bound. The engine copies out what is counted, also within what is
counted itself, so `{n,m}` multiplies what stands before it; letters and digits of all scripts (`\\w`, `\\d`, `\\p`) are
large tables. Prices are upper bounds and were measured. What cannot be read here has no price, and is not taken.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kapsel_expressions import engine

MOST: Final = 100.0  # of `ready` for all patterns of an expression: about 25 ms

_COPY: Final = 1 / 32  # of `ready`, for each copy of a character
_TABLE: Final = 2.0
_SMALL_TABLE: Final = 0.5
_LITERAL: Final = 1 / 16  # of `each`: many are compared at a time
_CHOICE: Final = 0.5
_TABLES: Final = {**dict.fromkeys("wWpP", _TABLE), **dict.fromkeys("dDsSbB<>", _SMALL_TABLE)}
_ESCAPE: Final = re.compile(r"\\(?:[pP][^{]|[pPxuU]\{[^{}]*\}|b\{[a-z-]+\}|[^pP])", re.DOTALL)
_COUNT: Final = re.compile(r"\{([0-9\s]{0,16})(,?)([0-9\s]{0,16})\}")  # the engine takes white space here
_OPENS: Final = re.compile(r"\((?:\?(?:P?<[^<>]*>|[a-wyzA-Z-]*[:)]))?")  # (?x) is left out: it hides white space


@dataclass(frozen=True, slots=True)
class Price:
    """`ready` is in parts of MOST; `each` is in steps for each character of the text."""

    ready: float = 0.0
    each: float = 0.0

    def __add__(self, other: "Price") -> "Price":
        return Price(self.ready + other.ready, self.each + other.each)

    def times(self, copies: float) -> "Price":
        return Price(self.ready * copies, self.each * copies)


_LETTER: Final = Price(_COPY, _LITERAL)
_ANY: Final = Price(_COPY, _CHOICE)


@lru_cache(maxsize=1024)
def price(literal: str) -> Price | None:
    """Return what the pattern costs that a literal of CEL is, or None for what cannot be read."""
    try:
        text = engine.compile_program(literal).execute({})
    except (ValueError, RuntimeError):
        return None
    if not isinstance(text, str):
        return None
    copies = _Reader(text).read()
    if copies is None:
        return None
    whole = Price(len(text), 1 / 16) + copies
    return Price(whole.ready * 2, whole.each) if re.search(r"\(\?[a-zA-Z]*i", text) else whole


class _Reader:
    """Adds up one pattern; a group is a sum that waits for the one within it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._sums = [Price()]
        self._last = Price()  # what a count multiplies

    def read(self) -> Price | None:
        while self._at < len(self._text):
            if not self._step(self._text[self._at]):
                return None
        while len(self._sums) > 1:  # an open group is a mistake, which the engine names
            self._close()
        return self._sums[0]

    def _step(self, char: str) -> bool:
        match char:
            case "\\":
                return self._add(self._escape())
            case "[":
                return self._add(self._class())
            case "(":
                return self._open()
            case ")":
                self._at += 1
                self._close()
                return True
            case "{":
                return self._count()
            case "*" | "+" | "?":
                self._at += 1
                self._sums[-1] += _ANY
                self._last += _ANY
                return True
            case _:
                self._at += 1
                return self._add(_ANY if char in ".|" else _LETTER)

    def _add(self, found: Price | None) -> bool:
        if found is None:
            return False
        self._sums[-1] += found
        self._last = found
        return True

    def _open(self) -> bool:
        found = _OPENS.match(self._text, self._at)
        if found is None or (found.group() == "(" and self._text.startswith("(?", self._at)):
            return False
        self._at = found.end()
        if not found.group().endswith(")"):  # else it sets flags
            self._sums.append(_LETTER)
        return True

    def _close(self) -> None:
        if len(self._sums) > 1:
            self._add(self._sums.pop())

    def _count(self) -> bool:
        found = _COUNT.match(self._text, self._at)
        if found is None:
            return False
        self._at = found.end()
        try:
            least, most = int(found.group(1).strip() or 0), int(found.group(3).strip() or 0)
        except ValueError:  # white space between digits
            return False
        copies = max(least + (1 if found.group(2) else 0), most, 1)
        counted = self._last.times(copies)
        self._sums[-1] += self._last.times(copies - 1)
        self._last = counted
        return True

    def _escape(self) -> Price | None:
        found = _ESCAPE.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        name = found.group()[1]
        if name not in _TABLES:
            return Price(_COPY * len(found.group()), _LITERAL)
        return Price(_TABLES[name], 3 * _CHOICE)

    def _class(self) -> Price | None:
        found, depth = Price(0.0, _CHOICE), 0
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "\\":
                escape = self._escape()
                if escape is None:
                    return None
                found += escape
                continue
            self._at += 1
            found += Price(_COPY, 0.0)
            if char == "[":
                depth += 1
                first = re.compile(r"\^?\]?").match(self._text, self._at)
                self._at = first.end() if first else self._at
            elif char == "]":
                depth -= 1
                if depth == 0:
                    return found
        return None

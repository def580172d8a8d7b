"""Plain values as YAML that every reader reads alike, YAML 1.1 and 1.2: for the files in crds/.

Words are plain only where nobody can take them for anything else, everything else is quoted as in JSON, and sentences
are folded.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

_WIDTH: Final = 112
_PLAIN: Final = re.compile(r"[A-Za-z_.][-A-Za-z0-9_./]*")
_RESERVED: Final = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", ".nan", ".inf", "."])
_SENTENCE: Final = re.compile(r"[^\s]+( [^\s]+)+")


def dump(value: dict[str, Any]) -> str:
    """Return a document."""
    return "".join(f"{line}\n" for line in _mapping(value, 0))


def _mapping(value: dict[str, Any], indent: int) -> Iterator[str]:
    pad = " " * indent
    for key, inner in value.items():
        name = _word(key)
        if isinstance(inner, dict) and inner:
            yield f"{pad}{name}:"
            yield from _mapping(inner, indent + 2)
        elif isinstance(inner, list) and inner:
            yield f"{pad}{name}:"
            yield from _sequence(inner, indent)
        elif _is_long(inner, indent + len(name)):
            yield f"{pad}{name}: >-"
            yield from textwrap.wrap(
                inner,
                max(_WIDTH, indent + 40),
                initial_indent=f"{pad}  ",
                subsequent_indent=f"{pad}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        else:
            yield f"{pad}{name}: {_scalar(inner)}"


def _sequence(values: list[Any], indent: int) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict) and value:
            lines = list(_mapping(value, indent + 2))
            yield f"{' ' * indent}- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield f"{' ' * indent}- {_scalar(value)}"


def _is_long(value: object, used: int) -> bool:
    return isinstance(value, str) and len(value) + used > _WIDTH and bool(_SENTENCE.fullmatch(value))


def _scalar(value: object) -> str:
    return _word(value) if isinstance(value, str) else json.dumps(value)


def _word(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
    return text if plain else json.dumps(text, ensure_ascii=False)

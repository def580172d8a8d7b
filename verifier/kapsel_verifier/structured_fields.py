"""Structured field values (RFC 9651): the part of them that message signatures and content digests are written in.

`acknowledgement` reads headers with it, and writes a value back in the one canonical form that RFC 9421 signs.
Integers, strings, tokens, booleans and byte sequences are here; decimals, dates and display strings are refused, as
nothing that is read here may hold them. A member or parameter that stands twice is refused too: RFC 9651 lets the last
one count, and a second reader might take the first.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from kapsel_verifier import strict

MAX_SIZE: Final = 8192  # characters of one field

_KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]*")
_TOKEN: Final = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]++|\\["\\])*+)"')
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]*):")
_BOOLEAN: Final = re.compile(r"\?([01])")
_ESCAPED: Final = re.compile(r"\\(.)")
_SPACES: Final = re.compile(r" *")
_OWS: Final = re.compile(r"[ \t]*")
# By the first character, which tells them apart.
_FORMS: Final = {'"': _STRING, ":": _BYTES, "?": _BOOLEAN, **dict.fromkeys("-0123456789", _INTEGER)}


class Token(str):
    """A bare word, which is another value than the string of the same letters."""

    __slots__ = ()


Bare = int | str | bytes | bool | Token


class Item(NamedTuple):
    """A value with its parameters."""

    value: Bare
    parameters: Mapping[str, Bare]


class InnerList(NamedTuple):
    """Values in parentheses, with the parameters of the list."""

    items: tuple[Item, ...]
    parameters: Mapping[str, Bare]


Member = Item | InnerList


def dictionary(text: str, what: str, error: strict.Refusal) -> dict[str, Member]:
    """Read a dictionary field, several field lines joined by commas; `error` is raised as everywhere in `strict`."""
    reader = _Reader(text, what, error)
    members: dict[str, Member] = {}
    reader.skip(_SPACES)
    while not reader.at_end():
        key = reader.key()
        if key in members:
            raise error(f"{what} has the member {key} twice")
        members[key] = reader.member() if reader.take("=") else Item(True, reader.parameters())
        reader.skip(_OWS)
        if reader.at_end():
            break
        reader.expect(",")
        reader.skip(_OWS)
        if reader.at_end():
            raise error(f"{what} ends in a comma")
    return members


def inner_list(text: str, what: str, error: strict.Refusal) -> InnerList:
    """Read one inner list with its parameters, and nothing after it."""
    reader = _Reader(text, what, error)
    found = reader.inner_list()
    if not reader.at_end():
        raise error(f"{what} goes on after its end")
    return found


def encode(member: Member) -> str:
    """Write an item or an inner list in the canonical form (RFC 9651 section 4.1)."""
    if isinstance(member, Item):
        return _bare(member.value) + encode_parameters(member.parameters)
    return f"({' '.join(map(encode, member.items))}){encode_parameters(member.parameters)}"


def encode_parameters(parameters: Mapping[str, Bare]) -> str:
    """Write parameters as they stand behind an item or a list."""
    return "".join(f";{key}" if value is True else f";{key}={_bare(value)}" for key, value in parameters.items())


def _bare(value: Bare) -> str:
    match value:
        case bool():
            return "?1" if value else "?0"
        case int():
            return str(value)
        case bytes():
            return f":{strict.to_base64(value)}:"
        case Token():
            return str(value)
        case _:
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reader:
    """A place in a text, and what may stand there."""

    def __init__(self, text: str, what: str, error: strict.Refusal) -> None:
        if len(text) > MAX_SIZE:
            raise error(f"{what} is longer than {MAX_SIZE} characters")
        self._text = text.strip(" ")
        self._what = what
        self._error = error
        self._place = 0

    def at_end(self) -> bool:
        return self._place == len(self._text)

    def skip(self, pattern: re.Pattern[str]) -> None:
        self._match(pattern)

    def take(self, character: str) -> bool:
        taken = self._text.startswith(character, self._place)
        self._place += taken
        return taken

    def expect(self, character: str) -> None:
        if not self.take(character):
            raise self._wrong(f"no {character}")

    def key(self) -> str:
        found = self._match(_KEY)
        if found is None:
            raise self._wrong("no key")
        return found[0]

    def member(self) -> Member:
        return self.inner_list() if self._text.startswith("(", self._place) else self.item()

    def item(self) -> Item:
        return Item(self._bare(), self.parameters())

    def inner_list(self) -> InnerList:
        self.expect("(")
        items: list[Item] = []
        self.skip(_SPACES)
        while not self.take(")"):
            items.append(self.item())
            if not self._text.startswith((" ", ")"), self._place):
                raise self._wrong("no space or )")
            self.skip(_SPACES)
        return InnerList(tuple(items), self.parameters())

    def parameters(self) -> dict[str, Bare]:
        found: dict[str, Bare] = {}
        while self.take(";"):
            self.skip(_SPACES)
            key = self.key()
            if key in found:
                raise self._error(f"{self._what} has the parameter {key} twice")
            found[key] = self._bare() if self.take("=") else True
        return found

    def _bare(self) -> Bare:
        form = _FORMS.get(self._text[self._place : self._place + 1], _TOKEN)
        found = self._match(form)
        if found is None:
            raise self._wrong("no value that can be read")
        if form is _STRING:
            return _ESCAPED.sub(r"\1", found[1]) if "\\" in found[1] else found[1]
        if form is _INTEGER:
            return int(found[0])
        if form is _BYTES:
            return strict.base64(found[1], f"a byte sequence of {self._what}", self._error)
        return found[1] == "1" if form is _BOOLEAN else Token(found[0])

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._place)
        if found is not None:
            self._place = found.end()
        return found

    def _wrong(self, missing: str) -> Exception:
        return self._error(f"{self._what} is not a structured field: {missing} at character {self._place}")

"""Expressions: compiled once when a configuration is planned or loaded, evaluated for each event.

What can be seen without an event is said at plan time: syntax, names that do not exist, functions that do not, a result
that cannot be of the sort that is wanted, and work that has no bound. What depends on the event is a `Failed` at run
time, never an exception.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from kapsel_expressions import cost, engine, pattern, syntax
from kapsel_expressions.cost import Size
from kapsel_expressions.event import FIELDS, Event
from kapsel_expressions.places import Places, names
from kapsel_expressions.syntax import Call, Collection, Comprehension, Field, Name, Node, SyntaxProblem

LONGEST: Final = 4096  # characters of an expression

Sort = Literal["bool", "string", "json"]
Reason = Literal[
    "missing",  # the event has not what the expression asks for
    "type",  # a value has another type than the operator or the place wants
    "arithmetic",  # a division by zero, or a number beyond 64 bits
    "too_large",  # the event is too large for this expression
    "failed",  # anything else the engine says
]

_SMALLEST: Final = Size(256, 4_096)  # an event that every expression has to have room for

# Every function there is, with how many arguments it takes, the one before the dot included.
FUNCTIONS: Final[Mapping[str, tuple[int, ...]]] = {
    "has": (1,),
    "size": (1,),
    "contains": (2,),
    "startsWith": (2,),
    "endsWith": (2,),
    "matches": (2,),
    "string": (1,),
    "bytes": (1,),
    "int": (1,),
    "uint": (1,),
    "double": (1,),
    "timestamp": (1,),
    "duration": (1,),
    "dyn": (1,),
    "type": (1,),
    "getFullYear": (1,),
    "getMonth": (1,),
    "getDate": (1,),
    "getDayOfMonth": (1,),
    "getDayOfWeek": (1,),
    "getDayOfYear": (1,),
    "getHours": (1,),
    "getMinutes": (1,),
    "getSeconds": (1,),
    "getMilliseconds": (1,),
}
_OPERATORS: Final = frozenset(
    {"||", "&&", "<", "<=", ">", ">=", "==", "!=", "in", "+", "-", "*", "/", "%", "!_", "-_", "?:", "[]"}
)
_TYPES: Final = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"})
_GIVES_BOOL: Final = frozenset(
    {"||", "&&", "<", "<=", ">", ">=", "==", "!=", "in", "!_", "has", "contains", "startsWith", "endsWith", "matches"}
)
_WANTED: Final = {"bool": "true or false", "string": "a string", "json": "a value that JSON has"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """What keeps a text from being an expression, and what would do instead."""

    wrong: str
    allowed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What an expression made of an event: of the sort it was compiled for."""

    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """That an expression made nothing of an event, and why. Nothing in it is of the event: it is logged and stored."""

    reason: Reason
    detail: str  # one sentence, for whoever wrote the expression; it names no field but one of the expression
    at: int | None = None  # the character of the expression where it failed, from 0 on; None: nobody could tell

    @property
    def said(self) -> str:
        """The detail and its place."""
        return self.detail if self.at is None else f"{self.detail} (character {self.at + 1})"


class Expression:
    """One compiled expression."""

    __slots__ = ("_admitted", "_names", "_places", "_program", "_sort", "_tree", "paths", "source")

    def __init__(self, source: str, sort: Sort, tree: Node, program: engine.Program) -> None:
        self.source = source
        self.paths = _paths(tree)
        self._sort = sort
        self._tree = tree
        self._program = program
        self._names = names(tree)
        self._places = Places(tree)
        self._admitted = _SMALLEST

    def evaluate(self, event: Event) -> Value | Failed:
        """Return what the expression makes of an event."""
        variables, size = event.pruned(self.paths)
        if not self._admits(size):
            return Failed(reason="too_large", detail="the event is too large for what the expression does with it")
        try:
            value = self._program.execute({"event": variables})
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is about this expression and this event
            return _failed(error, self._names)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # the engine's own, which no module exports
                raise
            return Failed(reason="failed", detail="the engine gave up")
        wrong = _unlike(value, self._sort)
        return Value(value=value) if wrong is None else Failed(reason="type", detail=wrong, at=self._tree.at)

    def trace(self, event: Event) -> Value | Failed:
        """Evaluate for whoever tells a person: of a failure it is looked for where it was, which takes its time."""
        made = self.evaluate(event)
        if isinstance(made, Value) or made.at is not None or made.reason == "too_large":
            return made
        variables, size = event.pruned(self.paths)
        node = self._places.find({"event": variables}, size)
        return replace(made, at=None if node is None else node.at)

    def _admits(self, size: Size) -> bool:
        known = self._admitted
        if size.values <= known.values and size.characters <= known.characters:
            return True
        if not cost.admits(self._tree, size):
            return False
        self._admitted = size
        return True


def compile_source(source: str, sort: Sort) -> Expression | Invalid:
    """Return the expression that a text is, or what is wrong with it."""
    if len(source) > LONGEST:
        return Invalid(wrong=f"the expression has {len(source)} characters", allowed=f"up to {LONGEST}")
    if (null := source.find("\0")) >= 0:  # Postgres stores none, and would refuse all that is declared beside it
        return Invalid(wrong=f"the expression holds a null character (character {null + 1})", allowed="text without it")
    try:
        tree = syntax.parse(source)
    except SyntaxProblem as problem:
        return Invalid(wrong=f"{problem.wrong} (character {problem.at + 1})", allowed="a CEL expression")
    if wrong := _names(tree, frozenset()):
        return wrong
    known = _known_sort(tree)
    if known is not None and known != sort and (sort != "json" or known in ("bytes", "timestamp", "duration")):
        return Invalid(wrong=f"the expression gives a {known}", allowed=f"one that gives {_WANTED[sort]}")
    if not cost.admits(tree, _SMALLEST):
        return Invalid(
            wrong="the expression may be too much work even for a small event",
            allowed="fewer all, exists, filter and map within and after each other, fewer copies of the body, "
            "and fewer and shorter patterns",
        )
    try:
        program = engine.compile_program(source)
    except ValueError as error:
        return Invalid(wrong=_engine_says(str(error)), allowed="a CEL expression")
    return Expression(source, sort, tree, program)


def _engine_says(text: str) -> str:
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)", text)
    return f"{found.group(3)[:200]} (line {found.group(1)}, character {found.group(2)})" if found else text[:200]


def _names(node: Node, bound: frozenset[str]) -> Invalid | None:
    """Return the first name that does not exist."""
    wrong: Invalid | None = None
    match node:
        case Name(name=name, at=at) if name != "event" and name not in bound and name not in _TYPES:
            wrong = Invalid(wrong=f"there is no {name} (character {at + 1})", allowed=f"event, with {_listed(FIELDS)}")
        case Field(of=Name(name="event"), name=name, at=at) if name not in FIELDS and "event" not in bound:
            wrong = Invalid(
                wrong=f"there is no event.{name} (character {at + 1})",
                allowed=_listed(f"event.{field}" for field in FIELDS),
            )
        case Comprehension(variable=variable, over=over, steps=steps):
            inner = bound | {variable}
            return _names(over, bound) or next(filter(None, (_names(step, inner) for step in steps)), None)
        case Call(name=name, at=at, args=args) if name not in _OPERATORS:
            wrong = _function(name, args, at)
        case _:
            pass
    return wrong or next(filter(None, (_names(child, bound) for child in syntax.children(node))), None)


def _function(name: str, args: tuple[Node, ...], at: int) -> Invalid | None:
    if name not in FUNCTIONS:
        return Invalid(
            wrong=f"there is no function {name} (character {at + 1})",
            allowed=_listed((*FUNCTIONS, *syntax.MACROS)),
        )
    if len(args) not in FUNCTIONS[name]:
        return Invalid(
            wrong=f"{name} has {len(args)} arguments (character {at + 1})",
            allowed=f"{FUNCTIONS[name][0]}, the one before the dot included",
        )
    if name == "has" and not isinstance(args[0], Field):
        return Invalid(wrong=f"has() asks for no field (character {at + 1})", allowed="has(event.body.action)")
    return _pattern(args[1], at) if name == "matches" else None


def _pattern(node: Node, at: int) -> Invalid | None:
    if not isinstance(node, syntax.Literal) or node.kind != "text":
        return Invalid(
            wrong=f"the pattern of matches is not written down (character {at + 1})",
            allowed="a text between quotes, such as matches('^a')",
        )
    price = pattern.price(node.source)
    if price is None:
        return Invalid(
            wrong=f"the pattern of matches cannot be read (character {at + 1})",
            allowed="a regular expression of RE2 without the flag x",
        )
    if price.ready > pattern.MOST:
        return Invalid(
            wrong=f"the pattern of matches is too much work (character {at + 1})",
            allowed="fewer and smaller {n,m}, and [0-9] or [a-z] where \\d, \\w or \\p stands",
        )
    return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _known_sort(node: Node) -> str | None:
    """Return what an expression gives where that does not depend on the event."""
    match node:
        case syntax.Literal(kind=kind, source=source):
            if kind == "text":
                return "bytes" if "b" in source[: source.index(source[-1])].lower() else "string"
            return kind
        case Collection(kind=kind):
            return kind
        case Comprehension(kind=kind):
            return "list" if kind in ("map", "filter") else "bool"
        case Call(name="?:", args=(_, yes, no)):
            known = _known_sort(yes)
            return known if known == _known_sort(no) else None
        case Call(name=name):
            if name in _GIVES_BOOL:
                return "bool"
            return {"size": "number", "int": "number", "uint": "number", "double": "number"}.get(
                name, name if name in ("string", "bytes", "timestamp", "duration") else None
            )
        case _:
            return None


def _paths(tree: Node) -> tuple[tuple[str, ...], ...]:
    """Return the parts of the event that an expression can look at, none of them within another."""
    found: set[tuple[str, ...]] = set()
    _collect(tree, frozenset(), found)
    return tuple(sorted(path for path in found if not any(path[:n] in found for n in range(len(path)))))


def _collect(node: Node, bound: frozenset[str], found: set[tuple[str, ...]]) -> None:
    path: list[str] = []
    inner = node
    while isinstance(inner, Field):
        path.insert(0, inner.name)
        inner = inner.of
    if isinstance(inner, Name) and inner.name == "event" and "event" not in bound:
        found.add(tuple(path))
    elif isinstance(node, Comprehension):
        _collect(node.over, bound, found)
        for step in node.steps:
            _collect(step, bound | {node.variable}, found)
    else:
        for child in syntax.children(inner if path else node):
            _collect(child, bound, found)


def _unlike(value: object, sort: Sort) -> str | None:
    """Return what is wrong with a result, if it is not of the sort."""
    match sort:
        case "bool":
            fits = isinstance(value, bool)
        case "string":
            fits = isinstance(value, str)
        case "json":
            fits = not isinstance(value, (bytes, datetime, timedelta, engine.OptionalValue))
    return None if fits else f"it gives a {_type_name(value)}, where {_WANTED[sort]} belongs"


def _type_name(value: object) -> str:
    names = {bool: "bool", int: "int", float: "double", str: "string", list: "list", dict: "map", type(None): "null"}
    names |= {bytes: "bytes", datetime: "timestamp", timedelta: "duration"}
    return names.get(type(value), "value of another kind")


def _failed(error: Exception, known: frozenset[str]) -> Failed:
    """Map what the engine raises, the one place that knows its exceptions; `known` are the names of the expression.

    A name that is not among them was made of the event, and what an event says is not told.
    """
    match error:
        case KeyError(args=(name, *_)) if name in known:
            return Failed(reason="missing", detail=f"the event has no {name[:100]}")
        case KeyError():
            return Failed(reason="missing", detail="a map has not the key that it is asked for")
        case IndexError():
            return Failed(reason="missing", detail="a list is shorter than the index")
        case TypeError():
            return Failed(reason="type", detail="an operator or a function got a value of another type than it takes")
        case ArithmeticError():
            return Failed(reason="arithmetic", detail="a division by zero, or a number beyond 64 bits")
        case _:
            return Failed(reason="failed", detail="a value cannot be converted, or a pattern is invalid")

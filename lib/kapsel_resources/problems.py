"""What is wrong with a resource, in plain sentences, and where.

`of_validation` turns pydantic's errors into them; the plan makes its own. A problem knows the path of the field, not
the file: whoever read the file maps the path to a line.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kapsel_resources import durations, schema
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import FORMS, Identity
from kapsel_resources.reasons import Reason

_TYPES: Final = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bytes_type": "a string",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_QUOTED: Final = "strings; YAML reads unquoted words such as on, off, y and n as true and false"
_SHOWN: Final = 60


Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with one resource."""

    resource: Identity  # as far as it could be read; parts that could not are empty
    path: Path  # of the field, from the top of the document
    reason: Reason
    wrong: str
    allowed: str  # what is allowed instead, or what to do

    @property
    def field(self) -> str:
        """The path as people write it: spec.destinations[0].url."""
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")

    def __str__(self) -> str:
        """Return one line: the field, what is wrong and what is allowed."""
        return f"{self.field or 'the document'}: {self.wrong}; allowed: {self.allowed}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def of_validation(resource: Identity, model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return a problem for each error of pydantic, in the order of the fields."""
    errors = error.errors(include_url=False)
    # A list whose items were refused is counted without them, and under a key that must not be there nothing is right:
    # neither is a problem of its own.
    idle = [one for one in errors if any(_follows(one, other) for other in errors)]
    return [_problem(resource, model, one) for one in errors if one not in idle]


def _follows(one: ErrorDetails, other: ErrorDetails) -> bool:
    path, cause = one["loc"], other["loc"]
    if one["type"] == "too_short":
        return _is_below(cause, path)
    return cause[-1:] == ("[key]",) and path != cause and path[: len(cause) - 1] == cause[:-1]


def _is_below(path: Path, parent: Path) -> bool:
    return len(path) > len(parent) and path[: len(parent)] == parent


def _problem(resource: Identity, model: type[BaseModel], details: ErrorDetails) -> Problem:
    context = details.get("ctx", {})
    path = tuple(details["loc"])
    if path[-1:] == ("[key]",):  # of a dict, where the path names the key already
        path = path[:-1]
    if details["type"] == "invalid_key":
        wrong = "a field's name is not a string"
        return Problem(resource=resource, path=path[:-1], reason="InvalidManifest", wrong=wrong, allowed=_QUOTED)
    if details["type"] == "kapsel":
        wrong, allowed = context["wrong"], context["allowed"]
        path += tuple(context.get("path", ()))
    else:
        wrong, allowed = _words(details, context, path, model)
    return Problem(resource=resource, path=path, reason="InvalidManifest", wrong=wrong, allowed=allowed)


def _words(details: ErrorDetails, context: dict[str, Any], path: Path, model: type[BaseModel]) -> tuple[str, str]:
    """Return what is wrong and what is allowed."""
    kind, value = details["type"], details["input"]
    shown = "the value" if model is Secret else _show(value)
    match kind:
        case "missing":
            return "the field is missing", _description(model, path)
        case "extra_forbidden":
            return _unknown(str(path[-1]), schema.model_at(model, path[:-1]))
        case "literal_error" if details["loc"][-1] == "[key]":
            return f"there is no field {path[-1]} here", str(context["expected"]).replace("'", "")
        case "literal_error":
            return f"{shown} is not one of the choices", str(context["expected"]).replace("'", "")
        case "string_pattern_mismatch":
            return f"{shown} has a form that is not allowed", FORMS[context["pattern"]]
        case "string_too_short" | "string_too_long":
            return f"the text has {len(value)} characters", _lengths(model, path, "characters")
        case "too_short" | "too_long":
            return f"there are {context['actual_length']} items", _lengths(model, path, "items")
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"{value if isinstance(value, str) else shown} is out of bounds", _bounds(model, path)
    if kind in _TYPES:
        return f"{shown} is not {_TYPES[kind]}", _TYPES[kind]
    return details["msg"], _description(model, path)


def choices(name: str, known: Sequence[str]) -> str:
    """Return the known names as a choice, the one that was probably meant first."""
    meant = nearest(name, known)
    return (f"did you mean {meant}? " if meant else "") + ", ".join(known)


def _unknown(name: str, model: type[BaseModel] | None) -> tuple[str, str]:
    known = [field.alias or key for key, field in model.model_fields.items()] if model else []
    return f"there is no field {name} here", choices(name, known) or "{}, without any field"


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, BaseModel | dict | list | tuple):
        return "a list" if isinstance(value, list | tuple) else "a mapping"
    if isinstance(value, timedelta):
        return durations.text(value)
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def _description(model: type[BaseModel], path: Path) -> str:
    field = schema.field_at(model, path)
    return (field.description if field else None) or "see the configuration reference"


def _lengths(model: type[BaseModel], path: Path, what: str) -> str:
    limits = schema.constraints(schema.field_at(model, path))
    low, high = limits.get("min_length", 0), limits.get("max_length")
    return f"{low} to {high} {what}" if high is not None else f"{low} {what} or more"


def _bounds(model: type[BaseModel], path: Path) -> str:
    limits = {name: _show(limit) for name, limit in schema.constraints(schema.field_at(model, path)).items()}
    low = f"from {limits['ge']}" if "ge" in limits else f"more than {limits['gt']}" if "gt" in limits else ""
    high = f"up to {limits['le']}" if "le" in limits else ""
    return " ".join(part for part in (low, high) if part)

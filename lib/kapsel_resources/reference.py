"""Writes docs/configuration.md: the prose of reference.md with a table for each kind, made from the models.

`python -m kapsel_resources.reference > docs/configuration.md`. A test keeps file and models equal.
"""

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kapsel_resources import crd, schema
from kapsel_resources.kinds.model import Model, Reference
from kapsel_resources.kinds.status import STATUSES, Status
from kapsel_resources.manifests import KINDS
from kapsel_resources.reasons import REASONS

_TEMPLATE: Final = Path(__file__).with_name("reference.md")
_SCALARS: Final[dict[object, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    timedelta: "duration",
    datetime: "time",
}


def render() -> str:
    """Return the whole page."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    for kind, model in KINDS.items():
        text = text.replace(f"<!-- fields of {kind} -->\n", _table(model))
        text = text.replace(f"<!-- {kind} in a cluster -->\n", _in_a_cluster(kind))
    reasons = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in REASONS.items())
    return text.replace("<!-- reasons -->\n", f"| reason | meaning |\n|---|---|\n{reasons}")


def _table(model: type[BaseModel]) -> str:
    spec = schema.field_at(model, ("spec",))
    inner = schema.model_of(spec.annotation) if spec else None
    rows = _rows(inner, "") if inner else ()
    return "| field of `spec` | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for path, field in _fields(model, prefix):
        yield f"| `{path}` | {_type(field)} | {_default(field)} | {_meaning(field)} |\n"


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield each field with its path, those of what it holds after it."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path, field
        inner = schema.model_of(field.annotation)
        if inner is not None and inner is not Reference:
            yield from _fields(inner, f"{path}[]." if _is_list(field.annotation) else f"{path}.")


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|").replace("<", "&lt;")


def _in_a_cluster(kind: str) -> str:
    """Return what only a cluster has: columns, selectors, what cannot be changed, and the status."""
    names, status = crd.NAMES[kind], STATUSES[kind]
    shown = ", ".join(column.name.upper() for column in names.all_columns if not column.wide)
    wide = " and ".join(column.name.upper() for column in names.all_columns if column.wide)
    lines = [f"`kubectl get {names.short}` shows {shown}; with `-o wide` {wide} as well."]
    if names.selectable:
        paths = ", ".join(f"`{path.removeprefix('.')}`" for path in names.selectable)
        lines.append(f"`--field-selector` knows {paths}.")
    common = {path for path, _ in _fields(Status, "")}
    rows = [
        f"| `{path}` | {_name(field.annotation)} | {_meaning(field)} |\n"
        for path, field in _fields(status, "")
        if path not in common
    ]
    table = f"| field of `status` | type | meaning |\n|---|---|---|\n{''.join(rows)}"
    kept = "".join(f"- `{path}`: {why}.\n" for path, why in _kept(KINDS[kind], ""))
    kept = f"What stays as it is once something depends on it:\n\n{kept}\n" if kept else ""
    return f"{' '.join(lines)}\n\n{kept}{' '.join((status.__doc__ or '').split())}\n\n{table}"


def _kept(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each field below a model that a rule keeps as it was, and why."""
    if issubclass(model, Model):
        yield from dict.fromkeys((f"{prefix}{rule.field}", rule.message) for rule in model.RULES if rule.is_over_time)
    for name, field in model.model_fields.items():
        inner = schema.model_of(field.annotation)
        if inner is not None:
            yield from _kept(inner, f"{prefix}{field.alias or name}.")


def _type(field: FieldInfo) -> str:
    limits = schema.constraints(field)
    words = _name(field.annotation)
    if "ge" in limits or "gt" in limits:
        low = (
            f"{schema.written(limits['ge'])} to"
            if "ge" in limits
            else f"more than {schema.written(limits['gt'])}, up to"
        )
        words += f", {low} {schema.written(limits['le'])}"
    elif _is_list(field.annotation):
        words += f", up to {limits['max_length']}"
    return words


def _name(annotation: Any) -> str:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation is Reference:
        return "`{name: ...}`"
    arguments = [one for one in get_args(annotation) if one not in (type(None), Ellipsis)]
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin is tuple:
        return f"list of {_plural(_name(arguments[0]))}"
    if origin is dict:
        return _map(arguments)
    if isinstance(annotation, type):
        return "object"
    return _name(arguments[0])  # optional, or annotated


def _map(arguments: list[Any]) -> str:
    keys, values = arguments
    if get_origin(keys) is Literal:
        return "object of " + " and ".join(f"`{one}`" for one in get_args(keys))
    return f"map of {_plural(_name(values))}"


def _plural(name: str) -> str:
    return f"{name}s" if name.isalpha() else name


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(get_origin(one) is tuple for one in get_args(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None or isinstance(value, BaseModel) else f"`{schema.written(value)}`"


if __name__ == "__main__":
    sys.stdout.write(render())

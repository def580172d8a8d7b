"""What a model says about one of its fields: looked up by path, for messages and for the reference."""

from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def constraints(field: FieldInfo | None) -> dict[str, Any]:
    """Return the bounds of a field by name: ge, gt, le, min_length, max_length, pattern."""
    names = ("ge", "gt", "le", "min_length", "max_length", "pattern")
    found: dict[str, Any] = {}
    for item in field.metadata if field else ():
        for name in names:
            value = getattr(item, name, None)  # annotated-types: one class a bound, and pydantic's own with several
            if value is not None:
                found[name] = value
    return found


def model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model at a path of aliases."""
    if not path:
        return model
    field = field_at(model, path)
    return model_of(field.annotation) if field else None


def field_at(model: type[BaseModel], path: tuple[str | int, ...]) -> FieldInfo | None:
    """Return the field at a path of aliases; an index stands for the item of its list."""
    current: type[BaseModel] | None = model
    found: FieldInfo | None = None
    for part in path:
        if isinstance(part, int):
            found = _item(found)
        else:
            fields = current.model_fields if current else {}
            found = next((field for key, field in fields.items() if part in (field.alias, key)), None)
        if found is None:
            return None
        current = model_of(found.annotation)
    return found


def _item(field: FieldInfo | None) -> FieldInfo | None:
    for argument in get_args(field.annotation) if field else ():
        if get_origin(argument) is tuple:  # an optional list
            argument = get_args(argument)[0]  # noqa: PLW2901
        if argument is not Ellipsis and argument is not type(None):
            return FieldInfo.from_annotation(argument)
    return None


def model_of(annotation: object) -> type[BaseModel] | None:
    """Return the model that a field holds, alone, as an optional one, or as the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        return next(filter(None, map(model_of, get_args(annotation))), None)
    return None

"""What a model says about one of its fields: looked up by path, for messages, for the reference and for the CRDs."""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kapsel_resources import durations


def constraints(field: FieldInfo | None) -> dict[str, Any]:
    """Return the bounds of a field by name: ge, gt, le, min_length, max_length, pattern."""
    return limits(bare(field.annotation, tuple(field.metadata))[1] if field else ())


def limits(metadata: Iterable[object]) -> dict[str, Any]:
    """Return the bounds that are among the metadata of a type."""
    names = ("ge", "gt", "le", "min_length", "max_length", "pattern")
    found: dict[str, Any] = {}
    for item in metadata:
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
    """Return the field at a path of aliases; an index or a key stands for the item of its list or dict."""
    current: type[BaseModel] | None = model
    found: FieldInfo | None = None
    for part in path:
        if current is None or isinstance(part, int):
            found = _item(found)
        else:
            fields = current.model_fields.items()
            found = next((field for key, field in fields if part in (field.alias, key)), None)
        if found is None:
            return None
        current = model_of(found.annotation)
    return found


def _item(field: FieldInfo | None) -> FieldInfo | None:
    """Return the items of a list, or the values of a dict."""
    bare_type, _ = bare(field.annotation) if field else (None, ())
    arguments = [one for one in get_args(bare_type) if one is not Ellipsis]
    return FieldInfo.from_annotation(arguments[-1]) if arguments else None


def model_of(annotation: object) -> type[BaseModel] | None:
    """Return the model that a field holds, alone, as an optional one, or as the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        return next(filter(None, map(model_of, get_args(annotation))), None)
    return None


def bare(annotation: Any, metadata: Sequence[object] = ()) -> tuple[Any, tuple[object, ...]]:
    """Return a type without `Annotated` and `| None`, and all that they and `metadata` say about it."""
    if get_origin(annotation) is Annotated:
        field = FieldInfo.from_annotation(annotation)
        return bare(field.annotation, (*field.metadata, *metadata))
    if get_origin(annotation) in (Union, UnionType):
        inner = [one for one in get_args(annotation) if one is not type(None)]
        if len(inner) == 1:
            return bare(inner[0], metadata)
    return annotation, tuple(metadata)


def written(value: object) -> str:
    """Return a value as people write it in a manifest."""
    if isinstance(value, timedelta):
        return durations.text(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(json.dumps(one) if isinstance(one, str) else written(one) for one in value) + "]"
    return json.dumps(value) if not isinstance(value, str) or not value else value

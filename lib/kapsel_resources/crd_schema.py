"""The OpenAPI schema of a model, as a CustomResourceDefinition must have it: structural, described and bounded.

Called by `crd`. What pydantic would generate is JSON Schema of another dialect, with references, defaults and nulls,
which the API server refuses. There are no defaults here on purpose: an object stays as it was applied, and an upgrade
that changes a default changes no object. The effective values are in the statuses.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, JsonValue, WithJsonSchema
from pydantic.fields import FieldInfo

from kapsel_resources import durations, schema
from kapsel_resources.kinds.model import Members, Model, Reference, RelayReference, Union
from kapsel_resources.rules import Rule, one_of

Schema = dict[str, Any]

_ATOMIC: Final = (Reference, RelayReference, Union)  # whoever applies one of these applies all of it
_MICROSECOND: Final = Rule("int(self) % 1000 == 0", "a duration finer than a microsecond cannot be kept")


def of_model(model: type[Model]) -> Schema:
    """Return the schema of an object."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    required = [name for name, field in fields.items() if field.is_required()]
    rules = [*([one_of(fields)] if issubclass(model, Union) else []), *model.RULES]
    return {
        "type": "object",
        **({"required": required} if required else {}),
        "properties": {name: of_field(field) for name, field in fields.items()},
        **({"x-kubernetes-map-type": "atomic"} if issubclass(model, _ATOMIC) else {}),
        **_validations(rules),
    }


def of_field(field: FieldInfo) -> Schema:
    """Return the schema of a field, with what people read of it."""
    return {"description": describe(field), **_of_type(field.annotation, field.metadata)}


def describe(field: FieldInfo) -> str:
    """Return the description of a field, and its default if it does not say so itself."""
    words = field.description or ""
    default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    if default is None or isinstance(default, BaseModel) or default in ((), {}) or "efault" in words:
        return words
    return f"{words} Default: {schema.written(default)}."


def _of_type(annotation: Any, metadata: Iterable[object] = ()) -> Schema:
    bare, metadata = schema.bare(annotation, tuple(metadata))
    limits = schema.limits(metadata)
    rules = [one for one in metadata if isinstance(one, Rule)]
    given = next((one.json_schema for one in metadata if isinstance(one, WithJsonSchema)), None)
    if bare is timedelta:
        rules = [_MICROSECOND, _within(limits), *rules]
    members = next((one.descriptions for one in metadata if isinstance(one, Members)), {})
    found = dict(given) if given is not None else _plain(bare, limits)
    for name, words in members.items():
        found["properties"][name] = {"description": words, **found["properties"][name]}
    return {**found, **_validations(rules)}


def _plain(annotation: Any, limits: Schema) -> Schema:
    """Return the schema of a type without anything around it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return of_model(annotation)
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is tuple:
        return _list(arguments[0], limits)
    if origin is dict:
        return _map(arguments[0], arguments[1], limits)
    if annotation is bool:
        return {"type": "boolean"}
    if annotation is str:
        return {"type": "string", **_renamed(limits, min_length="minLength", max_length="maxLength", pattern="pattern")}
    number = {"type": "integer", "format": "int64"} if annotation is int else {"type": "number", "format": "double"}
    exclusive = {"minimum": limits["gt"], "exclusiveMinimum": True} if "gt" in limits else {}
    return {**number, **_renamed(limits, ge="minimum", le="maximum"), **exclusive}


def _list(item: Any, limits: Schema) -> Schema:
    """Return the schema of a list: server-side apply merges items with a name, and takes any other list as a whole."""
    bare, _ = schema.bare(item)
    kind: Schema = {"x-kubernetes-list-type": "atomic"}
    if isinstance(bare, type) and issubclass(bare, Model) and bare.KEY:
        kind = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [bare.KEY]}
    elif get_origin(bare) is Literal:
        kind = {"x-kubernetes-list-type": "set"}
    bounds = _renamed(limits, min_length="minItems", max_length="maxItems")
    return {"type": "array", **bounds, **kind, "items": _of_type(item)}


def _map(key: Any, value: Any, limits: Schema) -> Schema:
    bounds = _renamed(limits, min_length="minProperties", max_length="maxProperties")
    if value is JsonValue:
        return {"type": "object", **bounds, "x-kubernetes-preserve-unknown-fields": True}
    if get_origin(key) is Literal:
        return {"type": "object", "properties": {name: _of_type(value) for name in get_args(key)}}
    longest = schema.limits(schema.bare(key)[1])["max_length"]
    rule = Rule(f"self.all(key, key.size() <= {longest})", f"a key has at most {longest} characters")
    return {"type": "object", **bounds, "additionalProperties": _of_type(value), **_validations([rule])}


def _within(limits: Schema) -> Rule:
    """Return the rule for the bounds of a duration, which a schema cannot say."""
    low, high = durations.text(limits["ge"]), durations.text(limits["le"])
    return Rule(
        f"self >= duration('{low}') && self <= duration('{high}')", f"out of bounds; allowed: from {low} up to {high}"
    )


def _renamed(limits: Schema, **names: str) -> Schema:
    return {name: limits[limit] for limit, name in names.items() if limit in limits}


def _validations(rules: Iterable[Rule]) -> Schema:
    entries = [rule.document() for rule in rules]
    return {"x-kubernetes-validations": entries} if entries else {}

"""Rules that hold for every field of every kind, so that a new field cannot forget them."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from kapsel_resources import schema
from kapsel_resources.kinds.relay import RelaySpec
from kapsel_resources.kinds.retry_policy import RetryPolicySpec
from kapsel_resources.kinds.status import STATUSES
from kapsel_resources.kinds.webhook_endpoint import Idempotency
from kapsel_resources.manifests import CORE_KINDS, KINDS
from kapsel_store import rows


def _fields(model: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        here = f"{path}.{field.alias or name}"
        yield here, field
        inner = schema.model_of(field.annotation)
        if inner is not None:
            yield from _fields(inner, here)


FIELDS = [one for kind, model in {**KINDS, **CORE_KINDS}.items() for one in _fields(model, kind)]
FIELDS += [one for kind, model in STATUSES.items() for one in _fields(model, f"{kind}.status")]
DESCRIBED = [(path, field) for path, field in FIELDS if not path.endswith((".apiVersion", ".kind"))]


def _unbounded(annotation: Any, metadata: Sequence[object] = ()) -> list[Any]:
    """Return the parts of a type that may grow without bound."""
    bare, around = schema.bare(annotation, metadata)
    arguments = [one for one in get_args(bare) if one is not Ellipsis]
    if get_origin(bare) is Literal:
        return []
    if get_origin(bare) is dict and get_origin(arguments[0]) is Literal:
        return _unbounded(arguments[1])
    grows = bare in (str, bytes) or get_origin(bare) in (tuple, dict)
    found = [bare] if grows and "max_length" not in schema.limits(around) else []
    if JsonValue in arguments:  # what an opaque object holds is bounded by the size of a manifest
        return found
    return found + [one for argument in arguments for one in _unbounded(argument)]


def test_every_field_explains_itself_in_a_sentence():
    assert len(DESCRIBED) > 100
    assert [path for path, field in DESCRIBED if not (field.description or "").endswith(".")] == []


def test_every_text_and_list_has_a_bound():
    assert [path for path, field in DESCRIBED if _unbounded(field.annotation, field.metadata)] == []


def test_every_number_has_two_bounds():
    bare = [(path, *schema.bare(field.annotation, field.metadata)) for path, field in DESCRIBED]
    numbers = [(path, schema.limits(around)) for path, annotation, around in bare if annotation in (int, float)]

    assert len(numbers) > 30
    assert [path for path, limits in numbers if "le" not in limits or not {"ge", "gt"} & limits.keys()] == []


def test_resources_cannot_be_changed():
    spec = RetryPolicySpec()

    with pytest.raises(ValidationError, match="frozen"):
        spec.max_attempts = 3


def test_an_empty_policy_is_the_policy_of_the_rows():
    assert RetryPolicySpec().policy() == rows.Policy()


def test_the_defaults_of_a_relay_and_of_idempotency_are_those_of_the_rows():
    assert RelaySpec().egress.allow_http is rows.RelayRow().allow_http
    assert RelaySpec().egress.allowed_cidrs == rows.RelayRow().allowed_cidrs
    assert Idempotency(source="Content").row() == rows.Idempotency(source="Content")

"""Rules that hold for every field of every kind, so that a new field cannot forget them."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from kapsel_resources import schema
from kapsel_resources.kinds.relay import RelaySpec
from kapsel_resources.kinds.retry_policy import RetryPolicySpec
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
DESCRIBED = [(path, field) for path, field in FIELDS if not path.endswith((".apiVersion", ".kind"))]


def _unbounded(annotation: Any, limits: dict[str, Any]) -> list[Any]:
    """Return the parts of a type that may grow without bound."""
    if annotation in (str, bytes) or get_origin(annotation) in (tuple, dict):
        found = [] if "max_length" in limits else [annotation]
        arguments = get_args(annotation)
        if JsonValue in arguments:  # what an opaque object holds is bounded by the size of a manifest
            return found
    elif get_origin(annotation) is Literal or annotation is type(None) or isinstance(annotation, type):
        return []
    else:
        found, arguments = [], get_args(annotation)
    for argument in arguments:
        if argument is Ellipsis:
            continue
        inner = FieldInfo.from_annotation(argument)
        outer = limits if not inner.metadata and get_origin(annotation) not in (tuple, dict) else {}
        found += _unbounded(inner.annotation, schema.constraints(inner) or outer)
    return found


def test_every_field_explains_itself_in_a_sentence():
    assert len(DESCRIBED) > 100
    assert [path for path, field in DESCRIBED if not (field.description or "").endswith(".")] == []


def test_every_text_and_list_has_a_bound():
    assert [path for path, field in DESCRIBED if _unbounded(field.annotation, schema.constraints(field))] == []


def test_every_number_has_two_bounds():
    numbers = [(path, schema.constraints(field)) for path, field in DESCRIBED if field.annotation in (int, float)]

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

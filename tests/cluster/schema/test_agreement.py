"""The models and the API server say the same of thousands of manifests, each a good one with one thing changed."""

import asyncio
import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from kubernetes.aio import client as kubernetes_api
from schema.requests import complaints, create
from schema.table import Case, cases, definitions, name

from kapsel_resources.manifests import parse

pytestmark = pytest.mark.usefixtures("crds")

AT_ONCE = 8
WHOLE = [case for case in cases("accept") if case.path.stem.endswith(("everything", "schedule", "secret"))]
REMOVED = object()
VALUES = [REMOVED, None, True, 0, -1, 0.5, [], {}, "", "X_y", "a b", "1d", "90s", "a" * 300]

Path = tuple[str | int, ...]


def _places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every place of a document, with what is there."""
    if path:
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from _places(below, (*path, key))


def _bounds(definition: dict[str, Any], path: Path) -> list[Any]:
    """Return values at, and just beyond, what the schema says of a place."""
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path:
        schema = schema.get("properties", {}).get(part) or schema.get("items") or schema.get("additionalProperties", {})
    numbers = [schema[bound] + step for bound in ("minimum", "maximum") for step in (-1, 0, 1) if bound in schema]
    numbers = [number for number in numbers if number not in VALUES]
    length = schema.get("maxLength")
    return [*numbers, *schema.get("enum", ()), *(["a" * length, "a" * (length + 1)] if length else [])]


def _changed(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    copy = deepcopy(document)
    holder: Any = copy
    for part in path[:-1]:
        holder = holder[part]
    if value is REMOVED:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copy


def _mutants(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (definition,) = (one for one in definitions() if one["spec"]["names"]["kind"] == document["kind"])
    for path, value in _places({"spec": document["spec"]}):
        if "podTemplate" in path[:-1]:
            continue  # opaque to both
        for other in [*VALUES, *_bounds(definition, path)]:
            yield _changed(document, path, other)
        if isinstance(value, dict):
            yield _changed(document, (*path, "unknown"), "x")
        if isinstance(value, list) and value:
            yield _changed(document, path, [*value, value[0]])


@pytest.mark.parametrize("case", WHOLE, ids=name)
async def test_what_the_models_refuse_the_api_server_refuses_and_nothing_else(
    api: kubernetes_api.ApiClient, case: Case
) -> None:
    (document,) = case.documents
    mutants = list(_mutants(document))
    limit = asyncio.Semaphore(AT_ONCE)

    async def disagreement(mutant: dict[str, Any]) -> str | None:
        async with limit:
            answer = await create(api, "default", mutant["kind"], json.dumps(mutant).encode())
        said, parsed = complaints(answer), parse(mutant)
        problems = [str(problem) for problem in parsed] if isinstance(parsed, list) else []
        return (
            f"{json.dumps(mutant['spec'])}: kapsel {problems}, kubernetes {said}"
            if bool(said) != bool(problems)
            else None
        )

    found = await asyncio.gather(*map(disagreement, mutants))

    assert len(mutants) > 100
    assert [one for one in found if one] == []

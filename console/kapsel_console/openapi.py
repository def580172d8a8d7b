"""The OpenAPI document of this API: a pure function of the routes that the application serves.

`app` answers with it. Shapes of answers are those that `documents` builds, the body of a replay is the manifest's own
model, and problems have the codes of `codes`: nothing is said twice, so nothing of it can go out of date.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from kapsel_console.codes import PROBLEMS, Code
from kapsel_console.context import Route
from kapsel_console.log_shapes import Problem, Waiting
from kapsel_console.openness import Openness
from kapsel_console.parameters import DEFAULT_LIMIT, MOST
from kapsel_console.tokens import HEADER
from kapsel_store.reasons import FAULTS
from kapsel_store.states import State

Document = dict[str, Any]

PATH: Final = "/api/v1/openapi.json"
_JSON: Final = "application/json"
_MODE: Final[JsonSchemaMode] = "validation"
_REF: Final = "#/components/schemas/{model}"
_PLACE: Final = re.compile(r"\{(\w+)(:[^}]*)?\}")
_ID: Final = {"type": "string", "format": "uuid"}
_TEXT: Final = {"type": "string"}
_SIZE: Final = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_NEEDED: Final = frozenset({"old_size"})
_ABOUT: Final = f"""\
Webhooks that came in, where they went, what came of it, and proofs of it. Lists are read by pages: `next` of a page is
the `cursor` of the following one. HEAD works wherever GET does. A query parameter that is not known is refused.

With a file of tokens every request needs one, as `Authorization: Bearer TOKEN` or `{HEADER}: TOKEN`, but for the public
keys of a namespace and what `KAPSEL_CONSOLE_PUBLIC_LOG` opens of the log. Members may be added to what is described
here, and are never renamed.
"""


def _some(values: Iterable[str]) -> Document:
    return {"type": "array", "minItems": 1, "items": {"type": "string", "enum": [str(value) for value in values]}}


# Every query parameter means the same wherever it is taken.
QUERY: Final[Mapping[str, tuple[Document, str]]] = {
    "namespace": (_TEXT, "Of this namespace."),
    "name": (_TEXT, "Of this name."),
    "limit": (
        {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT_LIMIT},
        "How many a page holds at most.",
    ),
    "cursor": (_TEXT, "What a page gave as `next`."),
    "endpoint": (_TEXT, "Of this endpoint: namespace/name."),
    "destination": (_TEXT, "To this destination: namespace/endpoint/name."),
    "since": (_TEXT, "From then on: a duration such as 15m, or a time such as 2026-01-31T12:00:00Z."),
    "state": (_some(State), "In these states."),
    "fault": (_some(FAULTS[1:]), "For reasons that are the fault of these."),
    "reason": (
        {"type": "array", "minItems": 1, "items": _TEXT},
        "For these reasons: codes, or a class such as status_5xx.",
    ),
    "late": (_TEXT, "What waits for longer than this is undelivered: a duration such as 1m."),
    "event": (_ID, "Of this event."),
    "delivery": (_ID, "Of this delivery."),
    "old_size": (_SIZE, "The number of leaves that you know of."),
    "new_size": (_SIZE, "The number of leaves that begins with them; without it the newest published one."),
    "origin": (_TEXT, "Of the log of this name; without it of the newest."),
}
_IN_PATH: Final[Mapping[str, tuple[Document, str]]] = {
    "id": (_ID, "The id, a UUID in lower case."),
    "path": (_TEXT, "The rest of the path, slashes included."),
    "log": (_TEXT, "The number of the log, from its `read_at`."),
    "namespace": (_TEXT, "The namespace of the keys."),
}


@cache
def document(routes: tuple[Route, ...]) -> Document:
    """Return the document that describes these routes."""
    names, schemas = _schemas(routes)
    paths: Document = {}
    problems: Document = {"Problem": _refusal(names[Problem], "Why there is no answer.")}
    for route in routes:
        refused = _refusals(route, names[Problem])
        problems.update(refused.values())
        operation = _operation(route, names, {status: name for status, (name, _) in refused.items()})
        paths.setdefault(_PLACE.sub(r"{\1}", route.path), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "kapsel", "version": "v1", "description": _ABOUT},
        "paths": paths,
        "security": [{"bearer": []}, {"header": []}, {}],
        "components": {
            "schemas": schemas,
            "responses": problems,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": HEADER},
            },
        },
    }


def _schemas(routes: Sequence[Route]) -> tuple[dict[type, Document], Document]:
    """Return the schema of every shape, which is a reference, and what they refer to."""
    types: set[type] = {Problem, Waiting, *(route.takes for route in routes if route.takes is not None)}
    types.update(route.gives for route in routes if not isinstance(route.gives, str))
    inputs: list[tuple[type, JsonSchemaMode, TypeAdapter[Any]]] = [
        (one, _MODE, TypeAdapter(one)) for one in sorted(types, key=repr)
    ]
    found, defined = TypeAdapter.json_schemas(inputs, ref_template=_REF, schema_generator=_Untitled)
    return {one: found[one, _MODE] for one in types}, defined["$defs"]


class _Untitled(GenerateJsonSchema):
    """Members have their names; a title that repeats them says nothing."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False


def _refusals(route: Route, problem: Document) -> dict[int, tuple[str, Document]]:
    """Return by status what a route answers when something is wrong; those with the same codes have one name."""
    by_status: dict[int, list[Code]] = {}
    for code in route.codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    return {status: (".".join(codes), _refused(codes, problem)) for status, codes in sorted(by_status.items())}


def _refused(codes: Sequence[Code], problem: Document) -> Document:
    says = " ".join(f"`{code}`: {PROBLEMS[code][1]}." for code in codes)
    return _refusal(problem | {"properties": {"code": {"enum": list(codes)}}}, says)


def _refusal(schema: Document, says: str) -> Document:
    return {"description": says, "content": {"application/problem+json": {"schema": schema}}}


def _operation(route: Route, names: Mapping[type, Document], refused: Mapping[int, str]) -> Document:
    made: Document = {
        "operationId": _operation_id(route),
        "summary": route.says[:1].upper() + route.says[1:],
        "parameters": [
            *(_parameter(found[1], "path", *_IN_PATH[found[1]]) for found in _PLACE.finditer(route.path)),
            *(_parameter(name, "query", *QUERY[name]) for name in route.query),
        ],
        "responses": _responses(route, names, refused),
    }
    if route.opens is Openness.NONE:
        made["description"] = "Needs no token."
    elif route.opens is not None:
        made["description"] = f"Needs no token with `KAPSEL_CONSOLE_PUBLIC_LOG` from `{route.opens.name.lower()}` on."
    if route.takes is not None:
        made["requestBody"] = {"required": True, "content": {_JSON: {"schema": names[route.takes]}}}
    return made


def _operation_id(route: Route) -> str:
    parts = re.findall(r"[a-z0-9]+", _PLACE.sub(r"\1", route.path.removeprefix("/api/v1")))
    return "_".join((route.method.lower(), *(parts or ["index"])))


def _parameter(name: str, where: str, schema: Document, says: str) -> Document:
    made: Document = {"name": name, "in": where, "description": says, "schema": schema}
    if where == "path" or name in _NEEDED:
        made["required"] = True
    if schema["type"] == "array":
        made |= {"style": "form", "explode": False}  # separated by commas
    return made


def _responses(route: Route, names: Mapping[type, Document], refused: Mapping[int, str]) -> Document:
    answers: Document = {
        str(status): {"description": _GOOD[status], "content": _content(route, names)} for status in route.statuses
    }
    if route.waits:
        answers["202"] = {"description": "It cannot be made yet.", "content": {_JSON: {"schema": names[Waiting]}}}
    for status, name in (*refused.items(), ("default", "Problem")):
        answers[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return answers


_GOOD: Final = {200: "The answer.", 201: "It was made.", 202: "It is under way; ask again."}


def _content(route: Route, names: Mapping[type, Document]) -> Document:
    if isinstance(route.gives, str):
        return {route.gives: {}}
    schema = names[route.gives]
    content = {route.form: {"schema": _page(schema) if route.pages else schema}}
    return content if route.also is None else content | {route.also: {}}


def _page(item: Document) -> Document:
    return {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": item},
            "next": {
                "type": ["string", "null"],
                "description": "The cursor of the page that follows; null on the last.",
            },
        },
    }

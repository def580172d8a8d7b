"""Holds answers to the OpenAPI document: a small walk over the part of JSON Schema that it uses, and no more lenient.

A member that is not described is a mistake here, although clients must expect new ones. Bounds are left out.
"""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

Document = dict[str, Any]
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
ANNOTATIONS = {"title", "description", "contentEncoding", "default"}
BOUNDS = {"minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "maxProperties", "propertyNames"}
KNOWN = {
    "type",
    "const",
    "enum",
    "format",
    "pattern",
    "properties",
    "required",
    "items",
    "prefixItems",
    "anyOf",
    "$ref",
}


def operations(document: Document) -> dict[tuple[str, str], Document]:
    """Return what the document describes, by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def wrong(document: Document, schema: Document, value: Any, at: str = "$") -> list[str]:
    """Return in what a value is not as a schema of the document says."""
    if "$ref" in schema:
        beside = schema.get("properties", {})
        return [
            *wrong(document, resolved(document, schema["$ref"]), value, at),
            *(one for name in beside for one in wrong(document, beside[name], value[name], f"{at}.{name}")),
        ]
    if "anyOf" in schema:
        tried = [wrong(document, one, value, at) for one in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    unknown = set(schema) - KNOWN - ANNOTATIONS - BOUNDS - {"additionalProperties"}
    assert not unknown, f"this walk does not know {unknown}"
    types = schema.get("type", list(TYPES))
    if not any(_is(value, one) for one in ([types] if isinstance(types, str) else types)):
        return [f"{at} is {value!r} and no {types}"]
    return [*_inside(document, schema, value, at), *_text(schema, value, at)]


def described(document: Document, method: str, path: str) -> Document | None:
    """Return what the document says of a request; None for a path that it does not describe."""
    for template, operation in sorted(document["paths"].items(), key=lambda one: -len(one[0])):
        form = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template).replace(r"\{path\}", ".+"))
        if re.fullmatch(form, path):
            found: Document | None = operation.get("get" if method == "HEAD" else method.lower())
            return found
    return None


def resolved(document: Document, reference: str) -> Document:
    found: Document = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _inside(document: Document, schema: Document, value: Any, at: str) -> list[str]:
    if isinstance(value, dict) and "properties" in schema:
        described = schema["properties"]
        return [
            *(f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value),
            *(f"{at}.{name} is not described" for name in value if name not in described),
            *(
                one
                for name, member in value.items()
                if name in described
                for one in wrong(document, described[name], member, f"{at}.{name}")
            ),
        ]
    if isinstance(value, list):
        each = schema.get("prefixItems") or [schema["items"]] * len(value)
        pairs = zip(each, value, strict=True)
        return [one for i, (of, item) in enumerate(pairs) for one in wrong(document, of, item, f"{at}[{i}]")]
    return []


def _text(schema: Document, value: Any, at: str) -> list[str]:
    said = []
    if "enum" in schema and value not in schema["enum"]:
        said.append(f"{at} is {value!r} and none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        said.append(f"{at} is {value!r} and not {schema['const']!r}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        said.append(f"{at} is {value!r} and not like {schema['pattern']}")
    if schema.get("format") == "uuid" and str(UUID(value)) != value:
        said.append(f"{at} is {value!r} and no id")
    if schema.get("format") == "date-time" and datetime.fromisoformat(value).utcoffset() is None:
        said.append(f"{at} is {value!r} and no time")
    return said

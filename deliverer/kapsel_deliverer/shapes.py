"""What the expressions of a destination make of one event, as pure functions: `shaping` asks when it is to be sent.

Nothing here knows of metrics, of deliveries under way or of HTTP.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kapsel_expressions.event import ABSENT, Event, named_headers, parse_body, type_of
from kapsel_expressions.expression import Expression, Failed, Invalid, Value, compile_source
from kapsel_store.rows import DestinationRow, Scheme, Transform, is_reserved_header

JSON: Final = "application/json"
LONGEST_HEADER: Final = 2048  # characters
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The compiled expressions of one destination. What the plan should have refused fails at each event."""

    filter: Expression | Invalid | None
    transforms: bool
    body: Expression | Invalid | None
    headers: tuple[tuple[str, Expression | Invalid], ...]
    content_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body that is sent instead of the one that came."""

    content: bytes
    hash: bytes  # SHA-256 of the content
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What is sent instead of what came."""

    body: Body | None  # None: the body as it came
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Misshapen:
    """That an expression of a destination failed at an event."""

    part: str  # body, or a header by its name; empty: the filter
    failed: Failed

    @property
    def said(self) -> str:
        """What is wrong, and where; nothing in it is of the event."""
        return f"{self.part}: {self.failed.said}" if self.part else self.failed.said


def shape(destination: DestinationRow) -> Shape:
    """Compile the expressions of a destination."""
    transform = destination.transform or Transform()
    return Shape(
        filter=None if destination.filter is None else compile_source(destination.filter, "bool"),
        transforms=destination.transform is not None,
        body=None if transform.body is None else compile_source(transform.body, "json"),
        headers=tuple(
            (name.lower(), compile_source(source, "string"))
            for name, source in transform.headers
            if not is_reserved_header(name)
        ),
        content_type=transform.content_type,
    )


def seen(
    *,
    event_id: str,
    scheme: Scheme,
    namespace: str,
    endpoint: str,
    received_at: datetime,
    headers: str,
    body: bytes,
) -> Event:
    """Return an event as expressions see it; `headers` as they are stored."""
    named, value = named_headers(headers), parse_body(body)
    return Event(
        id=event_id,
        type=type_of(scheme, named, value),
        endpoint=endpoint,
        namespace=namespace,
        received_at=received_at,
        headers=named,
        body=value,
    )


def wants(shape: Shape, event: Event) -> bool | Misshapen:
    """Return whether a destination wants an event."""
    if shape.filter is None:
        return True
    result = _evaluate(shape.filter, event)
    return Misshapen(part="", failed=result) if isinstance(result, Failed) else result.value is not False


def made(shape: Shape, event: Event) -> Made | Misshapen:
    """Return what a transform makes of an event. A body that is no JSON is sent as it came."""
    headers: dict[str, str] = {}
    for name, expression in shape.headers:
        value = _evaluate(expression, event)
        if isinstance(value, Failed):
            return Misshapen(part=f"header {name}", failed=value)
        text = str(value.value)
        if len(text) > LONGEST_HEADER or not _HEADER_VALUE.fullmatch(text):
            unfit = Failed(reason="type", detail="it gives what is no value of a header")
            return Misshapen(part=f"header {name}", failed=unfit)
        headers[name] = text
    if shape.body is None or event.body is ABSENT:
        return Made(body=None, headers=headers)
    content_type = shape.content_type or JSON
    result = _evaluate(shape.body, event)
    content = result if isinstance(result, Failed) else _encoded(result.value, content_type)
    if isinstance(content, Failed):
        return Misshapen(part="body", failed=content)
    body = Body(content=content, hash=hashlib.sha256(content).digest(), content_type=content_type)
    return Made(body=body, headers=headers)


def _evaluate(expression: Expression | Invalid, event: Event) -> Value | Failed:
    if isinstance(expression, Invalid):
        return Failed(reason="failed", detail=expression.wrong)
    return expression.trace(event)


def _encoded(value: object, content_type: str) -> bytes | Failed:
    """Return a body: the same bytes each time it is made, for a map of CEL has no order."""
    if isinstance(value, str) and not content_type.partition(";")[0].strip().lower().endswith("json"):
        return value.encode()
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (TypeError, ValueError):
        return Failed(reason="type", detail="it gives a value that JSON does not have, such as a timestamp")
    return text.encode()

"""What an expression can see of an event, made once for all expressions that look at it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from kapsel_expressions.cost import Size

FIELDS: Final = ("id", "type", "endpoint", "namespace", "receivedAt", "headers", "body")
DEEPEST: Final = 64  # lists and maps of a body within each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """That the event has no body that an expression could look at."""


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The variables of one event, as Python has them; `type` is None where the provider names none."""

    id: str
    type: str | None
    endpoint: str
    namespace: str
    received_at: datetime
    headers: Mapping[str, str]  # names in lower case
    body: object  # ABSENT if it is not JSON
    _pruned: dict[tuple[tuple[str, ...], ...], tuple[object, Size]] = field(default_factory=dict, repr=False)

    def pruned(self, paths: tuple[tuple[str, ...], ...]) -> tuple[object, Size]:
        """Return the parts of the event that these paths lead to, and how large they are together.

        Handing the engine a value costs more than evaluating most expressions, so it gets no more than it can look at.
        """
        if paths not in self._pruned:
            whole = self._variables()
            kept: dict[str, Any] = {}
            for path in paths:
                if not path:
                    kept = whole
                    break
                _keep(whole, path, kept)
            self._pruned[paths] = (kept, _size(kept))
        return self._pruned[paths]

    def _variables(self) -> dict[str, object]:
        variables: dict[str, object] = {
            "id": self.id,
            "endpoint": self.endpoint,
            "namespace": self.namespace,
            "receivedAt": self.received_at,
            "headers": self.headers,
        }
        if self.type is not None:
            variables["type"] = self.type
        if self.body is not ABSENT:
            variables["body"] = self.body
        return variables


def _keep(whole: Mapping[str, object], path: Sequence[str], kept: dict[str, Any]) -> None:
    """Copy what is at the path, and as much of the way as there is; another path may have made part of it."""
    name, rest = path[0], path[1:]
    if name not in whole:
        return
    value = whole[name]
    if rest and isinstance(value, Mapping):
        _keep(value, rest, kept.setdefault(name, {}))
    else:
        kept[name] = value


def _size(value: object) -> Size:
    """Count values and characters, and do not recurse: the value is somebody else's."""
    values, characters, left = 0, 0, [value]
    while left:
        each = left.pop()
        values += 1
        if isinstance(each, str):
            characters += len(each)
        elif isinstance(each, Mapping):
            left.extend(each.keys())
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return Size(values, characters)


def parse_body(body: bytes) -> object:
    """Return the value of a body that is JSON (RFC 8259, UTF-8), and ABSENT for any other."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return ABSENT
    return value if _shallow(value, body) else ABSENT


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _shallow(value: object, body: bytes) -> bool:
    """Return whether it is nested so little that the engine can take it."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return True
    level = _containers([value])
    for _ in range(DEEPEST):
        if not level:
            return True
        level = [child for each in level for child in _containers(each)]
    return not level


def _containers(values: Iterable[object]) -> list[Iterable[object]]:
    """Return what is in those of the values that hold others."""
    return [each.values() if isinstance(each, dict) else each for each in values if isinstance(each, (dict, list))]


def named_headers(stored: str) -> dict[str, str]:
    """Return the headers of a stored event, names in lower case; of one that came often, its values with commas."""
    named: dict[str, str] = {}
    for name, value in json.loads(stored):
        key = name.lower()
        named[key] = f"{named[key]}, {value}" if key in named else value
    return named


# Where a provider names the type of an event: a header, or a way through the body.
_TYPE_HEADERS: Final = {
    "github": "x-github-event",
    "gitlab": "x-gitlab-event",
    "linear": "linear-event",
    "shopify": "x-shopify-topic",
    "sns": "x-amz-sns-message-type",
}
_TYPE_PATHS: Final = {
    "stripe": (("type",),),
    "standardWebhooks": (("type",),),
    "slack": (("event", "type"), ("type",)),
    "meta": (("object",),),
    "okta": (("eventType",),),
    "zoom": (("event",),),
    "paddle": (("event_type",),),
    "square": (("type",),),
    "discord": (("event", "type"),),
    "pagerduty": (("event", "event_type"),),
    "docusign": (("event",),),
}


def type_header(scheme: str) -> str | None:
    """Return the header in which the provider of this verification scheme names the type of an event, if it does."""
    return _TYPE_HEADERS.get(scheme)


def type_of(scheme: str, headers: Mapping[str, str], body: object) -> str | None:
    """Return the type that the provider of this verification scheme gave an event, if it names one."""
    if (header := _TYPE_HEADERS.get(scheme)) is not None:
        return headers.get(header)
    for path in _TYPE_PATHS.get(scheme, ()):
        value = body
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str):
            return value
    return None

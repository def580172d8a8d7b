"""What would become of one event at each destination of an endpoint: pure, for `kapsel try`.

The receiver asks for the order key, the deliverer asks the filter and the transform, and here all are asked alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kapsel_deliverer import shapes
from kapsel_deliverer.shapes import Made, Misshapen
from kapsel_egress.verdicts import Denied, check_url
from kapsel_expressions.event import ABSENT, Event
from kapsel_expressions.expression import Failed, Invalid, Sort, compile_source
from kapsel_resources.endpoints import DENIED
from kapsel_store.rows import DestinationRow, RelayRow, Scheme

SHOWN: Final = 100  # characters of an expression around a mistake

Result = Literal["sent", "filtered", "failed", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """An endpoint as far as expressions and URLs go, from manifests or from a console."""

    namespace: str
    name: str
    scheme: Scheme
    suspend: bool
    max_body_bytes: int
    destinations: tuple[DestinationRow, ...]
    places: Mapping[tuple[str, str], str] = field(default_factory=dict)  # destination and field -> file:line
    egress: RelayRow | None = None  # None: it runs, so its URLs were judged when it was planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong with one expression, in general or at this event."""

    where: str  # the field, below the destination: transform.headers[0].value
    reason: str  # invalid, or the reason of a failure
    said: str
    source: str
    at: int | None = None  # the character of the source
    declared_at: str | None = None  # file:line
    stalls: str = "ExpressionInvalid"  # the reason that the endpoint would be Stalled for, if it is invalid

    @property
    def excerpt(self) -> tuple[str, ...]:
        """The line of the expression, and below it a mark at the place."""
        if self.at is None:
            return (_clipped(self.source.splitlines()[0], 0)[0],)
        begin = self.source.rfind("\n", 0, self.at) + 1
        line, column = _clipped(self.source[begin:].split("\n", 1)[0], self.at - begin)
        return line, " " * column + "^"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What becomes of the event at one destination."""

    destination: DestinationRow
    result: Result
    mistakes: tuple[Mistake, ...] = ()
    key: str | None = None  # of the order; None: the destination asks for none, or it failed
    made: Made | None = None  # None: the event as it came, if it is sent


def tries(declared: Declared, event: Event, only: Sequence[str]) -> list[Trial]:
    """Return what becomes of an event at each destination, or at those of these names."""
    return [
        _tried(declared, destination, event)
        for destination in declared.destinations
        if not only or destination.name in only
    ]


def _tried(declared: Declared, destination: DestinationRow, event: Event) -> Trial:
    invalid = tuple(_invalid(declared, destination))
    if invalid:
        return Trial(destination=destination, result="invalid", mistakes=invalid)
    key = _key(declared, destination, event)
    mistakes: tuple[Mistake, ...] = (key,) if isinstance(key, Mistake) else ()
    key = None if isinstance(key, Mistake) else key
    shape = shapes.shape(destination)
    wanted = shapes.wants(shape, event)
    if wanted is False:
        return Trial(destination=destination, result="filtered", mistakes=mistakes, key=key)
    made = shapes.made(shape, event) if wanted is True else wanted
    if isinstance(made, Misshapen):
        mistakes += (_mistake(declared, destination, _field(destination, made.part), made.failed),)
        return Trial(destination=destination, result="failed", mistakes=mistakes, key=key)
    return Trial(
        destination=destination, result="sent", mistakes=mistakes, key=key, made=made if shape.transforms else None
    )


def _key(declared: Declared, destination: DestinationRow, event: Event) -> str | Mistake | None:
    if destination.ordering is None:
        return None
    compiled = compile_source(destination.ordering.key, "string")
    if isinstance(compiled, Invalid):  # looked at before
        return None
    made = compiled.trace(event)
    return _mistake(declared, destination, "ordering.key", made) if isinstance(made, Failed) else str(made.value)


def expressions(destination: DestinationRow) -> Iterator[tuple[str, str, Sort]]:
    """Yield the fields of a destination that are expressions, what stands there, and what it has to give."""
    if destination.filter is not None:
        yield "filter", destination.filter, "bool"
    if destination.transform is not None:
        if destination.transform.body is not None:
            yield "transform.body", destination.transform.body, "json"
        for index, (_, source) in enumerate(destination.transform.headers):
            yield f"transform.headers[{index}].value", source, "string"
    if destination.ordering is not None:
        yield "ordering.key", destination.ordering.key, "string"


def _invalid(declared: Declared, destination: DestinationRow) -> Iterator[Mistake]:
    verdict = None if declared.egress is None else check_url(destination.url, declared.egress)
    if isinstance(verdict, Denied):
        stalls, allowed = DENIED[verdict.reason]
        yield Mistake(
            where="url",
            reason="invalid",
            said=f"{verdict.detail}; allowed: {allowed}",
            source=destination.url,
            declared_at=declared.places.get((destination.name, "url")),
            stalls=stalls,
        )
    for where, source, sort in expressions(destination):
        compiled = compile_source(source, sort)
        if isinstance(compiled, Invalid):
            yield Mistake(
                where=where,
                reason="invalid",
                said=f"{compiled.wrong}; allowed: {compiled.allowed}",
                source=source,
                declared_at=declared.places.get((destination.name, where)),
            )


def _mistake(declared: Declared, destination: DestinationRow, where: str, failed: Failed) -> Mistake:
    sources = {name: source for name, source, _ in expressions(destination)}
    return Mistake(
        where=where,
        reason=failed.reason,
        said=failed.said,
        source=sources[where],
        at=failed.at,
        declared_at=declared.places.get((destination.name, where)),
    )


def _field(destination: DestinationRow, part: str) -> str:
    """Return the field that a part of a shape was made of."""
    if not part:
        return "filter"
    if part == "body":
        return "transform.body"
    names = [f"header {name.lower()}" for name, _ in destination.transform.headers] if destination.transform else []
    return f"transform.headers[{names.index(part)}].value"


def _clipped(line: str, at: int) -> tuple[str, int]:
    """Return as much of a line as a person looks at, and where the character `at` is in it."""
    begin = max(0, min(at - SHOWN // 2, len(line) - SHOWN))
    return line[begin : begin + SHOWN].replace("\t", " "), at - begin


def document(event: Event, tried: Sequence[Trial]) -> dict[str, Any]:
    """Return all of it as JSON has it."""
    return {
        "event": {
            "id": event.id,
            "type": event.type,
            "endpoint": f"{event.namespace}/{event.endpoint}",
            "headers": dict(event.headers),
            "json": event.body is not ABSENT,
        },
        "destinations": [_document(trial) for trial in tried],
    }


def _document(trial: Trial) -> dict[str, Any]:
    body = None if trial.made is None else trial.made.body
    return {
        "name": trial.destination.name,
        "url": trial.destination.url,
        "result": trial.result,
        "suspend": trial.destination.suspend,
        "order_key": trial.key,
        "mistakes": [
            {
                "field": mistake.where,
                "reason": mistake.reason,
                "text": mistake.said,
                "character": None if mistake.at is None else mistake.at + 1,
                "declared_at": mistake.declared_at,
            }
            for mistake in trial.mistakes
        ],
        "headers": None if trial.made is None else trial.made.headers,
        "content_type": None if body is None else body.content_type,
        "body": None if body is None else body.content.decode(),
    }

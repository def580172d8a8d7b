"""What every handler works with: the context of the application, the shape of a route, and JSON answers."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiohttp import web

from kapsel_console.codes import Code
from kapsel_console.openness import Openness
from kapsel_console.storage import Storage
from kapsel_resources import keys
from kapsel_resources.kinds.model import Resource
from kapsel_store.configuration import Source
from kapsel_store.rows import Configuration, KeyRow

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Signers:
    """The key pairs that sign deliveries, worked out once for each configuration: strangers may ask for them."""

    def __init__(self) -> None:
        self._configuration: Configuration | None = None
        self._found: dict[str, list[tuple[str, KeyRow]]] = {}

    def of(self, configuration: Configuration, namespace: str) -> list[tuple[str, KeyRow]]:
        """Return those of a namespace, each version with the name of its SigningKey."""
        if configuration is not self._configuration:
            self._configuration, self._found = configuration, keys.signers(configuration)
        return self._found.get(namespace, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What one console process has."""

    storage: Storage
    source: Source
    now: Callable[[], datetime]
    signers: Signers = field(default_factory=Signers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route, and what the index and the OpenAPI document say of it."""

    path: str
    handler: Handler
    says: str
    method: str = "GET"
    opens: Openness | None = None  # from which level on it needs no token; None: it always does
    query: tuple[str, ...] = ()  # the parameters that the handler takes
    takes: type[Resource] | None = None  # the manifest that is its body
    gives: type | str  # the shape of its good answer, or the media type of one that is no JSON
    also: str | None = None  # another media type, for those who ask for it by Accept
    pages: bool = False  # a page of a list of these
    form: str = "application/json"  # the media type of a shape
    statuses: tuple[int, ...] = (200,)  # of its good answers
    waits: bool = False  # 202 with what it waits for, until there is one
    reads: bool = True  # from the database, which may be away
    problems: tuple[Code, ...] = ()  # what else can be wrong, besides what every such route has in common

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes of all problems that it can answer with."""
        common: dict[Code, bool] = {
            "parameter_unknown": True,
            "parameter_invalid": bool(self.query) or "{id}" in self.path,
            "request_refused": self.takes is not None,
            "token_required": True,
            "token_wrong": True,
            "cross_origin": self.method != "GET",
            "unknown_host": True,
            "too_many_requests": self.opens is not None,
            "internal_error": True,
            "storage_unavailable": self.reads,
            "query_timeout": self.reads,
        }
        return (*(code for code, can in common.items() if can), *self.problems)


CONTEXT: Final = web.AppKey("context", Context)


def answer(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return JSON that nobody may keep: the next look may show something else."""
    return web.Response(
        status=status,
        body=encoded(value),
        headers={"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
    )


def encoded(value: object) -> bytes:
    """Return JSON as every answer has it: one line."""
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode(errors="surrogatepass")


def listing(items: Sequence[Mapping[str, object]], following: str | None) -> web.Response:
    """Return one page of a list; `following` is the cursor of the next one, None on the last."""
    return answer({"items": items, "next": following})

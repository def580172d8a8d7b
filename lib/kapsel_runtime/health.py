"""Health and metrics of a process over HTTP, on a port of its own, so that overload of the work does not hide them.

Each component builds one Health, adds its checks and serves it as long as it lives, draining included. What a metric
means is left to the component's own metrics.py.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from kapsel_runtime.pages import Answer, Pages

Check = Callable[[], str | None]

_SHUTDOWN_TIMEOUT: Final = 1.0  # seconds for answers under way; a probe that gets none asks again
_SCRAPE_TIMEOUT: Final = 10.0  # seconds; Prometheus gives up after as many by default
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether new work may come in, and if not, why: the reason of each check, None for one that passes."""

    ready: bool
    draining: bool
    checks: dict[str, str | None] = field(default_factory=dict)


class Health:
    """What one process says about itself.

    It is live as long as its loop turns, which each answer shows; it is ready if it does not drain and all checks pass.
    """

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Ask `check` for readiness: it returns None, or the reason why not, at once and without blocking."""
        self._checks[name] = check

    def ready(self) -> Readiness:
        """Ask all checks."""
        checks = {name: check() for name, check in self._checks.items()}
        draining = self._stopping.is_set()
        ready = not draining and all(reason is None for reason in checks.values())
        return Readiness(ready=ready, draining=draining, checks=checks)

    async def serve(self, host: str, port: int, registry: CollectorRegistry) -> "HealthServer":
        """Serve /health/live, /health/ready and /metrics until the returned server is closed; port 0 is any free one.

        The port may be one that whoever started this process holds for it (SO_REUSEPORT).

        The registry gets the collectors of the process itself too; all of them run in a thread.
        """
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        metrics = _Metrics(registry)
        pages = Pages(
            {"/health/live": self._answer_live, "/health/ready": self._answer_ready, "/metrics": metrics.answer}
        )
        return HealthServer(pages, host, await pages.start(host, port))

    async def _answer_live(self, _: Mapping[str, str]) -> Answer:
        return _json(HTTPStatus.OK, {"status": "live"})

    async def _answer_ready(self, _: Mapping[str, str]) -> Answer:
        found = self.ready()
        status = "draining" if found.draining else "ready" if found.ready else "not ready"
        checks = {name: reason or "ok" for name, reason in found.checks.items()}
        answer = HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(answer, {"status": status, "checks": checks})


class HealthServer:
    """A listening health server; close it last, when the process has drained."""

    def __init__(self, pages: Pages, host: str, port: int) -> None:
        self._pages = pages
        self.port: int = port
        reachable = socket.gethostname() if host in _ANY_ADDRESS else host
        self.address = f"http://[{reachable}]:{self.port}" if ":" in reachable else f"http://{reachable}:{self.port}"

    async def close(self) -> None:
        """Stop listening and close all connections."""
        await self._pages.close(_SHUTDOWN_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, headers: Mapping[str, str]) -> Answer:
        encode, content_type = choose_encoder(headers.get("accept", ""))
        try:
            async with asyncio.timeout(_SCRAPE_TIMEOUT), self._one_at_a_time:
                # In a thread: thousands of series take longer to write than a webhook may wait for the loop.
                body = await asyncio.to_thread(encode, self._registry)
        except TimeoutError:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the metrics were not collected in time\n")
        return Answer(HTTPStatus.OK, body, content_type)


def _json(status: HTTPStatus, content: object) -> Answer:
    return Answer(status, json.dumps(content).encode(), "application/json; charset=utf-8")

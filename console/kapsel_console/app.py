"""The application: all routes, and around them what every answer has in common.

The middleware asks for a token if there is a file of them. Without one nobody is asked who they are: that is meant for
127.0.0.1, the default. There, with or without tokens, it refuses what a web page in somebody's browser could make that
browser do: host names that are not this machine's (DNS rebinding), and changes asked for by pages of another origin.
"""

import asyncio
import json
import logging
import re
import secrets
import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from kapsel_console import actions, attestation, keys, listings, openapi, proofs, replaying, tiles
from kapsel_console.codes import PROBLEMS
from kapsel_console.context import CONTEXT, Context, Route, answer
from kapsel_console.errors import ProblemError
from kapsel_console.metrics import Metrics
from kapsel_console.openness import Openness, Visitors, open_to_pages, preflight
from kapsel_console.parameters import DEFAULT_LIMIT, MOST, Parameters
from kapsel_console.tokens import Tokens, offered
from kapsel_runtime import logs

UNMATCHED: Final = "unmatched"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
MAX_REQUEST_BYTES: Final = 65_536
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

logger = logging.getLogger(__name__)


async def index(request: web.Request) -> web.Response:
    """Answer with what is here, as text."""
    Parameters(request.query)
    width = max(len(route.path) for route in ROUTES)
    routes = "\n".join(f"{route.method:<7}{route.path:<{width}}  {route.says}" for route in ROUTES)
    text = f"""\
kapsel console

{routes}

Lists take limit ({DEFAULT_LIMIT}, at most {MOST}) and cursor (what a page gave as next).
since is a duration such as 15m, or a time such as 2026-01-31T12:00:00Z.
Errors are application/problem+json (RFC 9457) with a stable code.
With KAPSEL_CONSOLE_TOKEN_FILE every request needs a token: Authorization: Bearer TOKEN, or Kapsel-Token: TOKEN;
but for the public keys of a namespace and what KAPSEL_CONSOLE_PUBLIC_LOG opens of the log.
Without it nobody is asked who they are: keep this on 127.0.0.1, or put something in front that asks.
"""
    return web.Response(text=text)


async def describe(request: web.Request) -> web.Response:
    """Answer with what is here, as OpenAPI."""
    Parameters(request.query)
    # The first time it takes long enough for others to notice.
    return answer(await asyncio.to_thread(openapi.document, (INDEX, *ROUTES)))


INDEX: Final = Route(path="/", handler=index, says="this list", gives=proofs.TEXT, reads=False)
ROUTES: Final = (
    *listings.ROUTES,
    *keys.ROUTES,
    *actions.ROUTES,
    *replaying.ROUTES,
    *attestation.ROUTES,
    *proofs.ROUTES,
    *tiles.ROUTES,
    Route(path=openapi.PATH, handler=describe, says="this API as an OpenAPI 3.1 document", gives=dict, reads=False),
)


def build(
    context: Context, metrics: Metrics, host: str, tokens: Tokens | None = None, visitors: Visitors | None = None
) -> web.Application:
    """Return the application of a console that listens on `host`; without tokens it asks nobody who they are.

    With tokens, `visitors` are those who bring none: they may read what is open, and without them nothing is.
    """
    visitors = visitors or Visitors(Openness.NONE, 1)
    edge = _Edge(metrics, host, tokens, visitors)
    app = web.Application(middlewares=[edge.middleware], client_max_size=MAX_REQUEST_BYTES)
    app[CONTEXT] = context
    for route in (INDEX, *ROUTES):
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
        if visitors.may_read(route.opens):
            app.router.add_route("OPTIONS", route.path, preflight)
    return app


class _Edge:
    """The middleware: correlation, foreign pages, tokens, problems, metrics. The one broad `except` is here."""

    def __init__(self, metrics: Metrics, host: str, tokens: Tokens | None, visitors: Visitors) -> None:
        self._metrics = metrics
        self._local = host in LOOPBACK
        self._tokens = tokens
        self._visitors = visitors
        self._open = frozenset(
            web.DynamicResource(route.path).canonical if "{" in route.path else route.path
            for route in ROUTES
            if visitors.may_read(route.opens)
        )

    @property
    def middleware(self) -> Middleware:
        """Return the middleware as aiohttp takes it."""

        @web.middleware
        async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
            given = request.headers.get("X-Correlation-Id", "")
            correlation_id = given if _CORRELATION_ID.fullmatch(given) else secrets.token_hex(8)
            started = time.monotonic()
            with logs.bind(correlation_id=correlation_id):
                response = await self._answer(request, handler, correlation_id)
            response.headers["X-Correlation-Id"] = correlation_id
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["Server"] = "kapsel"
            if self._is_open(request):
                open_to_pages(response)
            self._measure(request, response.status, time.monotonic() - started)
            return response

        return edge

    async def _answer(self, request: web.Request, handler: Handler, correlation_id: str) -> web.StreamResponse:
        try:
            self._refuse_foreign(request)
            if self._tokens is not None:
                if self._is_open(request) and not offered(request.headers):
                    self._visitors.admit()
                else:
                    self._tokens.require(request.headers)
            return await handler(request)
        except ProblemError as error:
            return problem(error, correlation_id)
        except web.HTTPException as error:
            return _of_aiohttp(error, request, correlation_id)
        except Exception:
            logger.exception("a request failed", extra={"path": request.path})
            return problem(ProblemError("internal_error", "it was logged under this correlation id"), correlation_id)

    def _is_open(self, request: web.Request) -> bool:
        resource = request.match_info.route.resource
        return resource is not None and resource.canonical in self._open

    def _refuse_foreign(self, request: web.Request) -> None:
        host = request.host.rpartition(":")[0] if re.search(r":\d+$", request.host) else request.host
        if self._local and host.lower() not in LOOPBACK:
            raise ProblemError(
                "unknown_host", f"the host {host[:100]!r} is not this machine; ask for 127.0.0.1 or localhost"
            )
        if request.method in _SAFE:
            return
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:
            raise ProblemError("cross_origin", f"the page is of {origin[:100]!r}, and this server is {request.host}")

    def _measure(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        route = UNMATCHED if resource is None else resource.canonical
        method = request.method if resource is not None else UNMATCHED
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.duration.labels(route).observe(seconds)


def problem(error: ProblemError, correlation_id: str) -> web.Response:
    """Return RFC 9457 problem details."""
    status, title = PROBLEMS[error.code]
    content = {
        "type": f"urn:kapsel:problem:{error.code}",
        "title": title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "correlation_id": correlation_id,
        **error.members,
    }
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        wrong = ', error="invalid_token"' if error.code == "token_wrong" else ""
        headers["WWW-Authenticate"] = f'Bearer realm="kapsel"{wrong}'
    return web.Response(status=status, body=(json.dumps(content) + "\n").encode(), headers=headers)


def _of_aiohttp(error: web.HTTPException, request: web.Request, correlation_id: str) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        refused = ProblemError("method_not_allowed", f"{request.path[:200]} takes {allowed}")
        answer = problem(refused, correlation_id)
        answer.headers["Allow"] = allowed
        return answer
    if error.status == 404:
        return problem(
            ProblemError("unknown_route", f"there is nothing at {request.path[:200]!r}; GET / lists what there is"),
            correlation_id,
        )
    return problem(ProblemError("request_refused", error.reason), correlation_id)

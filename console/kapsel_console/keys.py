"""The keys of the configuration: which versions there are, who uses them, and the public halves. Never a secret.

What is shown is what this process has loaded, so it costs no query. Revealing a secret is left to `kapsel secret`,
which needs the data directory and not only this port. The log's keys as verifiers read them are in `attestation`.
"""

from typing import Final

from aiohttp import web

from kapsel_console import documents, shapes
from kapsel_console.context import CONTEXT, Route, listing
from kapsel_console.errors import ProblemError
from kapsel_console.parameters import Parameters, key_cursor
from kapsel_resources.keys import users
from kapsel_store.rows import KeyRow

LOAD_RETRY: Final = 2  # seconds


async def list_keys(request: web.Request) -> web.Response:
    """Answer with every version of every key, by name."""
    asked = Parameters(request.query, "limit", "cursor")
    limit, after = asked.limit(), asked.key_cursor()
    context = request.app[CONTEXT]
    if not context.source.loaded:
        raise ProblemError("not_ready", "the configuration has not been loaded yet; try again", retry_after=LOAD_RETRY)
    configuration, now = context.source.current, context.now()
    used_by = users(configuration)
    rows = sorted((row for row in configuration.keys if _place(row) > after), key=_place)
    return listing(
        [documents.key(row, used_by.get((row.namespace, row.name), []), now) for row in rows[:limit]],
        key_cursor(*_place(rows[limit - 1])) if len(rows) > limit else None,
    )


def _place(row: KeyRow) -> tuple[str, str, int]:
    return row.namespace, row.name, row.version


ROUTES: Final = (
    Route(
        path="/api/v1/keys",
        handler=list_keys,
        says="signing keys, their versions and public halves; no secrets",
        query=("limit", "cursor"),
        gives=shapes.Key,
        pages=True,
        reads=False,
        problems=("not_ready",),
    ),
)

"""The keys of the configuration: which versions there are, who uses them, and the public halves. Never a secret.

Destinations find the public keys of a namespace here without a token: those of key pairs that sign deliveries, and of
no others. What is shown is what this process has loaded, so it costs no query. Revealing a secret is left to `kapsel
secret`, which needs the data directory and not only this port. The log's keys as verifiers read them are in
`attestation`.
"""

from datetime import datetime
from typing import Final

from aiohttp import web

from kapsel_console import documents, shapes
from kapsel_console.caching import JWK_SET, KEYS_CACHE, kept
from kapsel_console.context import CONTEXT, Context, Route, encoded, listing
from kapsel_console.errors import ProblemError
from kapsel_console.openness import Openness
from kapsel_console.parameters import Parameters, key_cursor
from kapsel_resources.keys import users
from kapsel_store.rows import Configuration, KeyRow

LOAD_RETRY: Final = 2  # seconds


async def list_keys(request: web.Request) -> web.Response:
    """Answer with every version of every key, by name."""
    asked = Parameters(request.query, "limit", "cursor")
    limit, after = asked.limit(), asked.key_cursor()
    context = request.app[CONTEXT]
    configuration, now = _loaded(context), context.now()
    used_by = users(configuration)
    rows = sorted((row for row in configuration.keys if _place(row) > after), key=_place)
    return listing(
        [documents.key(row, used_by.get((row.namespace, row.name), []), now) for row in rows[:limit]],
        key_cursor(*_place(rows[limit - 1])) if len(rows) > limit else None,
    )


async def signing_keys(request: web.Request) -> web.Response:
    """Answer with the public keys that deliveries of a namespace are signed with, now or soon."""
    versions = _signing(request)
    current: dict[str, int] = {}
    now = request.app[CONTEXT].now()
    for name, row in versions:
        if row.not_before <= now:
            current[name] = row.version  # they come by version
    found: shapes.SigningKeys = {
        "keys": [documents.signing_key(row, name, _state(row, current.get(name), now)) for name, row in versions]
    }
    return kept(request, encoded(found), type_="application/json", cache=KEYS_CACHE)


async def signing_jwks(request: web.Request) -> web.Response:
    """Answer with the same keys as a JSON Web Key Set."""
    found: shapes.SigningJwks = {"keys": [documents.signing_jwk(row, name) for name, row in _signing(request)]}
    return kept(request, encoded(found), type_=JWK_SET, cache=KEYS_CACHE)


def _signing(request: web.Request) -> list[tuple[str, KeyRow]]:
    """Return the versions asked for and the SigningKeys that they are of; what is over is left out."""
    wanted = Parameters(request.query, "name").text("name")
    context, namespace = request.app[CONTEXT], request.match_info["namespace"]
    configuration, now = _loaded(context), context.now()
    found = [
        (name, row)
        for name, row in context.signers.of(configuration, namespace)
        if wanted in (None, name) and (row.not_after is None or now < row.not_after)
    ]
    if not found:
        # The same for a namespace that there is not: nobody learns which there are.
        asked = namespace if wanted is None else f"{namespace}/{wanted}"
        raise ProblemError("no_signing_keys", f"no delivery of {asked[:200]!r} is signed with an Ed25519 SigningKey")
    return found


def _state(row: KeyRow, current: int | None, now: datetime) -> shapes.KeyState:
    if row.not_before > now:
        return "coming"
    return "current" if row.version == current else "retiring"


def _loaded(context: Context) -> Configuration:
    if not context.source.loaded:
        raise ProblemError("not_ready", "the configuration has not been loaded yet; try again", retry_after=LOAD_RETRY)
    return context.source.current


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
    Route(
        path="/.well-known/kapsel/signing-keys/{namespace}/keys.json",
        handler=signing_keys,
        says="the public keys with which deliveries of a namespace are signed (name)",
        opens=Openness.NONE,
        query=("name",),
        gives=shapes.SigningKeys,
        reads=False,
        problems=("no_signing_keys", "not_ready"),
    ),
    Route(
        path="/.well-known/kapsel/signing-keys/{namespace}/jwks.json",
        handler=signing_jwks,
        says="the same as a JSON Web Key Set (name)",
        opens=Openness.NONE,
        query=("name",),
        gives=shapes.SigningJwks,
        form=JWK_SET,
        reads=False,
        problems=("no_signing_keys", "not_ready"),
    ),
)

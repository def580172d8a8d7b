"""What the demonstration posts: one webhook of each sort that a receiver meets, signed as providers sign.

Called by `demo`. The secrets are those that examples/quickstart declares.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kapsel_cli import manifests, providers
from kapsel_cli.errors import CliError
from kapsel_cli.providers import Outgoing
from kapsel_resources.kinds.core import Secret
from kapsel_store.rows import Scheme

FORGED_SECRET: Final = b"not the secret that was agreed on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One webhook to send, and what must come of it."""

    what: str
    endpoint: str  # in the namespace of the example
    scheme: Scheme
    webhook: Outgoing
    status: int = 202


def webhooks(example: Path) -> list[Post]:
    """Return what is posted, signed with the secrets that the example declares."""
    secrets = _secrets(example)
    push = _body(ref="refs/heads/main", repository={"full_name": "shop/orders"}, commits=[{"message": "Ship it"}])
    github = _outgoing("github", secrets["github"], push, "push")
    stripe_id = providers.new_id("stripe")
    charge = _body(id=stripe_id, type="charge.succeeded", data={"object": {"amount": 4200, "currency": "eur"}})
    stock = _body(type="stock.changed", data={"sku": "KAPSEL-1", "left": 12})
    return [
        Post(what="GitHub push", endpoint="github-orders", scheme="github", webhook=github),
        Post(
            what="Stripe charge",
            endpoint="stripe-payments",
            scheme="stripe",
            webhook=_outgoing("stripe", secrets["stripe"], charge, "charge.succeeded"),
        ),
        Post(
            what="Standard Webhooks",
            endpoint="partner-stock",
            scheme="standardWebhooks",
            webhook=_outgoing("standardWebhooks", secrets["partner"], stock, "stock.changed"),
        ),
        Post(what="GitHub push, sent again", endpoint="github-orders", scheme="github", webhook=github),
        Post(
            what="GitHub push, forged",
            endpoint="github-orders",
            scheme="github",
            webhook=replace(github, secret=FORGED_SECRET, id=providers.new_id("github")),
            status=401,
        ),
        Post(
            what="GitHub push, dead destination",
            endpoint="github-archive",
            scheme="github",
            webhook=replace(github, id=providers.new_id("github")),
        ),
    ]


def _secrets(example: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for resource in manifests.read(example).resources:
        if isinstance(resource, Secret):
            found |= resource.entries
    if not found:
        raise CliError(f"{example} declares no Secret", "Run this from the root of the repository")
    return found


def _outgoing(scheme: Scheme, secret: bytes, body: bytes, kind: str) -> Outgoing:
    return Outgoing(body=body, secret=secret, id=providers.new_id(scheme), type=kind, now=datetime.now(UTC))


def _body(**members: object) -> bytes:
    return json.dumps(members).encode()

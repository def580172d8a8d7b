"""What goes with a Relay and what stays: with deletionPolicy as it is at the end, not as it was at the beginning."""

import asyncio
from typing import Any

import pytest

from kapsel_operator import prepare
from kapsel_operator.apis import DECLARED_BY_KIND, SECRET
from kapsel_operator.manifests import generated_secrets

NAME = "main-sealing-key"


async def tied(shop: Any, spec: dict[str, Any]) -> Any:
    """Change the Relay, and let its Secret follow."""
    changed = await shop.change({"database": {"secretRef": {"name": "database"}}, **spec})
    await prepare.tie(changed.cluster, changed.relay, changed.facts, NAME)
    return changed


@pytest.mark.parametrize(("first", "last", "stays"), [("Retain", "Delete", False), ("Delete", "Retain", True)])
async def test_a_sealing_key_goes_or_stays_as_the_relay_says_last(
    make_shop: Any, first: str, last: str, stays: bool
) -> None:
    shop = await make_shop({"deletionPolicy": first})
    await prepare.make(shop.cluster, generated_secrets.sealing_key(shop.relay, shop.facts, bytes(32)))
    await prepare.make(shop.cluster, generated_secrets.console_token(shop.relay, shop.facts, "token"))
    await tied(shop, {"deletionPolicy": first})
    await tied(shop, {"deletionPolicy": last})
    await shop.cluster.delete(DECLARED_BY_KIND["Relay"], shop.namespace, "main")
    async with asyncio.timeout(180):  # the garbage collector takes the token in any case
        while await shop.cluster.get(SECRET, shop.namespace, "main-console-token") is not None:
            await asyncio.sleep(0.2)
    if stays:
        kept = await shop.get("Secret", NAME)
        assert set(kept["data"]) == {"sealing.key"}
        return
    async with asyncio.timeout(180):
        while await shop.cluster.get(SECRET, shop.namespace, NAME) is not None:
            await asyncio.sleep(0.2)


async def test_a_secret_that_is_gone_is_not_made_empty(make_shop: Any) -> None:
    shop = await make_shop({"deletionPolicy": "Delete"})
    await prepare.tie(shop.cluster, shop.relay, shop.facts, NAME)
    assert await shop.cluster.get(SECRET, shop.namespace, NAME) is None

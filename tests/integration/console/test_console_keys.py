"""The keys that the console shows: all versions, who uses them, public halves, and no secret in any form."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from kapsel_store.rows import KeyRow, Verification

SECRET = b"0123456789abcdef0123456789abcdef"
PATH = "/api/v1/keys"


def key(
    name: str, version: int = 1, *, begins: timedelta = timedelta(days=-1), ends: timedelta | None = None
) -> KeyRow:
    now = datetime.now(UTC)
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name=name,
        version=version,
        algorithm="HMAC-SHA256",
        secret=SECRET,
        not_before=now + begins,
        not_after=None if ends is None else now + ends,
    )


@pytest.fixture
async def keys(console, world) -> None:
    """An endpoint that is verified with a Secret and signs with a rotated key, and one that knows a password."""
    keyed = replace(world.orders, verification=Verification(scheme="github", key_name="literal/github"))
    basic = replace(world.other, verification=Verification(scheme="basic", key_name="basic/partner"))
    await world.apply(
        endpoints=(keyed, basic),
        destinations=(replace(world.billing, key_name="generated/out"), world.crm),
        keys=(
            *world.desired.keys,
            key("generated/out", 1, ends=timedelta(days=1)),
            key("generated/out", 2, begins=timedelta(days=1)),
            key("literal/github"),
            key("basic/partner"),
        ),
    )
    await console.source._refresh()


async def test_every_version_is_shown_with_its_time_and_its_users(console, world, keys) -> None:
    items = (await console.get(PATH))["items"]
    assert [(one["namespace"], one["name"], one["version"], one["live"]) for one in items] == [
        ("default", "log", 1, True),
        ("shop", "basic/partner", 1, True),
        ("shop", "generated/out", 1, True),
        ("shop", "generated/out", 2, False),
        ("shop", "literal/github", 1, True),
    ]
    log, basic, first, second, github = items
    assert log["used_by"] == [f"log {world.desired.log.origin}"]
    assert basic["used_by"] == ["endpoint shop/other"]
    assert first["used_by"] == second["used_by"] == ["destination shop/orders/billing"]
    assert github["used_by"] == ["endpoint shop/orders"]
    assert (first["generated"], github["generated"]) == (True, False)
    assert (first["algorithm"], basic["algorithm"]) == ("HMAC-SHA256", None)
    assert (first["not_after"][-1], second["not_after"]) == ("Z", None)


async def test_of_a_key_pair_the_public_half_is_shown(console, world, keys) -> None:
    log = (await console.get(PATH))["items"][0]
    (row,) = (row for row in world.desired.keys if row.algorithm == "Ed25519")
    assert log["public_key"] == "whpk_" + base64.b64encode(row.public).decode()


async def test_no_secret_leaves_the_console_in_any_form(console, world, keys) -> None:
    body, _ = await console.raw(PATH)
    for secret in {row.secret for row in world.desired.keys}:
        for form in (secret, base64.b64encode(secret), secret.hex().encode()):
            assert form not in body


async def test_keys_come_in_pages_and_each_once(console, keys) -> None:
    seen, cursor = [], ""
    while cursor is not None:
        page = await console.get(f"{PATH}?limit=2{cursor and '&cursor='}{cursor}")
        seen += [(one["name"], one["version"]) for one in page["items"]]
        cursor = page["next"]
    assert len(seen) == 5
    assert seen == sorted(set(seen), key=seen.index)


async def test_keys_are_asked_for_strictly_and_not_before_they_are_loaded(console, world) -> None:
    assert (await console.problem(PATH))[:2] == (503, "not_ready")
    await console.source._refresh()
    for query in ("name=x", "cursor=x", "cursor=YS9i", "limit=0"):
        assert (await console.problem(f"{PATH}?{query}"))[0] == 400


async def test_the_command_shows_them_and_the_index_names_them(console, kapsel, keys) -> None:
    ran = await kapsel("get", "keys", "--server", console.url)
    heading, *rows = ran.out.splitlines()
    assert heading.split()[:5] == ["NAME", "VERSION", "ALGORITHM", "LIVE", "SINCE"]
    assert [row.split()[0] for row in rows] == [
        "default/log", "shop/basic/partner", "shop/generated/out", "shop/generated/out", "shop/literal/github",
    ]  # fmt: skip
    assert base64.b64encode(SECRET).decode() not in ran.out
    assert "whpk_" in (await kapsel("get", "keys", "-o", "wide", "--server", console.url)).out
    assert PATH.encode() in (await console.raw("/"))[0]

"""The keys that the console shows: all versions, who uses them, public halves, and no secret in any form."""

import asyncio
import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from kapsel_console.openness import Openness, Visitors
from kapsel_console.tokens import Tokens
from kapsel_deliverer.signing import Signer
from kapsel_resources import key_values
from kapsel_store.rows import KeyRow, Verification
from kapsel_verifier import jwks

SECRET = b"0123456789abcdef0123456789abcdef"
PATH = "/api/v1/keys"
PUBLIC = "/.well-known/kapsel/signing-keys"
DELIVERING = Path(__file__).parents[3] / "docs" / "delivering.md"


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


def pair(
    name: str, version: int = 1, *, begins: timedelta = timedelta(days=-1), ends: timedelta | None = None
) -> KeyRow:
    """Return a version of a key pair."""
    value = key_values.of_seed(f"{name} {version}".encode().rjust(32))
    return replace(
        key(name, version, begins=begins, ends=ends), algorithm="Ed25519", secret=value.secret, public=value.public
    )


@pytest.fixture
async def signing(console, world) -> dict[tuple[str, int], KeyRow]:
    """A namespace with keys of every sort: billing signs with one key pair, crm with another one."""
    rotated = [
        pair("generated/out", 1, ends=timedelta(hours=1)),
        pair("generated/out", 2, begins=timedelta(hours=-1), ends=timedelta(days=9)),
        pair("generated/out", 3, begins=timedelta(days=8)),
    ]
    others = [
        pair("ed25519/partner"),
        pair("generated/next"),
        pair("generated/over", ends=timedelta(seconds=-1)),
        pair("generated/in"),
        pair("generated/log"),
        replace(pair("ed25519/theirs"), secret=b""),
        key("generated/shared"),
        key("endpoint/orders"),
        replace(pair("generated/out"), namespace="elsewhere", id=uuid4()),
    ]
    inbound = Verification(scheme="standardWebhooks", key_name="generated/in")
    foreign = Verification(scheme="standardWebhooks", key_name="ed25519/theirs")
    await world.apply(
        endpoints=(replace(world.orders, verification=inbound), replace(world.other, verification=foreign)),
        destinations=(
            replace(world.billing, key_name="generated/out"),
            replace(world.crm, key_name="ed25519/partner"),
        ),
        keys=(*rotated, *others),
        log=replace(world.desired.log, namespace="shop", key_name="generated/log"),
    )
    await console.source._refresh()
    return {(row.name, row.version): row for row in world.desired.keys if row.namespace == "shop"}


async def test_public_keys_that_sign_are_found_with_what_comes_and_what_goes(console, signing) -> None:
    items = (await console.get(f"{PUBLIC}/shop/keys.json"))["keys"]
    assert [(one["name"], one["version"], one["state"]) for one in items] == [
        ("next", 1, "current"),  # nobody uses it yet
        ("out", 1, "retiring"),
        ("out", 2, "current"),
        ("out", 3, "coming"),
        ("partner", 1, "current"),
    ]
    row = signing["generated/out", 2]
    assert items[2]["id"] == str(row.id)
    assert items[2]["algorithm"] == "Ed25519"
    assert items[2]["public_key"] == key_values.public_text(row.public)
    assert (items[2]["not_before"] < items[2]["not_after"], items[3]["not_after"]) == (True, None)
    named = (await console.get(f"{PUBLIC}/shop/keys.json?name=partner"))["keys"]
    assert named == items[4:]


async def test_the_same_keys_are_a_json_web_key_set(console, signing) -> None:
    body, headers = await console.raw(f"{PUBLIC}/shop/jwks.json?name=out")
    assert headers["Content-Type"] == "application/jwk-set+json"
    rows = [signing["generated/out", version] for version in (1, 2, 3)]
    assert [one.public for one in jwks.parse(body)] == [row.public for row in rows]
    found = (await console.get(f"{PUBLIC}/shop/jwks.json?name=out"))["keys"]
    assert [one["kid"] for one in found] == [str(row.id) for row in rows]
    assert [(one["nbf"], one.get("exp")) for one in found] == [
        (int(row.not_before.timestamp()), None if row.not_after is None else int(row.not_after.timestamp()))
        for row in rows
    ]


async def test_nothing_of_another_key_and_no_secret_is_published(console, world, signing) -> None:
    for form in ("keys", "jwks"):
        body, _ = await console.raw(f"{PUBLIC}/shop/{form}.json")
        for row in world.desired.keys:
            for text in (base64.b64encode(row.secret), base64.urlsafe_b64encode(row.secret), row.secret.hex().encode()):
                assert not row.secret or text.rstrip(b"=") not in body
        for name in (b"over", b"in", b"log", b"theirs", b"shared", b"orders"):
            assert b'"name":"%b"' % name not in body


async def test_they_need_no_token_and_who_has_them_is_not_sent_them_again(serve, world, signing, tmp_path) -> None:
    (tmp_path / "token").write_text("a-token-of-this-test\n")
    tokens = Tokens(tmp_path / "token")
    tokens.load()
    console = await serve(tokens=tokens, visitors=Visitors(Openness.NONE, 3.0))
    assert (await console.problem(f"{PUBLIC}/shop/keys.json"))[:2] == (503, "not_ready")
    await console.source._refresh()
    status, _, response = await console.ask(f"{PUBLIC}/shop/keys.json")
    assert (status, response.headers["Cache-Control"]) == (200, "public, max-age=60")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    known = {"If-None-Match": response.headers["ETag"]}
    assert (await console.ask(f"{PUBLIC}/shop/keys.json", headers=known))[:2] == (304, b"")
    assert (await console.problem("/.well-known/kapsel/keys.json"))[:2] == (401, "token_required")
    answers = await asyncio.gather(*(console.ask(f"{PUBLIC}/shop/jwks.json") for _ in range(40)))
    assert 429 in {status for status, _, _ in answers}


async def test_a_namespace_without_such_keys_answers_as_one_that_there_is_not(console, signing) -> None:
    for path in ("default/keys.json", "nowhere/keys.json", "shop/jwks.json?name=shared", "shop/keys.json?name=in"):
        assert (await console.problem(f"{PUBLIC}/{path}"))[:2] == (404, "no_signing_keys")


async def test_what_docs_print_fetches_the_keys_and_holds_on_while_they_rotate(console, world, signing) -> None:
    printed: dict[str, type] = {}
    for block in re.findall(r"```python\n(.*?)```", DELIVERING.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, printed)
    asking = printed["PublishedKeys"](f"{console.url}{PUBLIC}/shop/keys.json?name=out")
    now = datetime.now(UTC)

    def delivered(*rows: KeyRow, at: datetime = now) -> dict[str, str]:
        signature = Signer(rows).sign("an-id", int(at.timestamp()), b"{}", at)
        assert signature is not None
        return {"webhook-id": "an-id", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}

    async def genuine(headers: dict[str, str], body: bytes = b"{}") -> bool:
        return await asyncio.to_thread(asking.is_genuine, headers, body)

    rotated = [row for (name, _), row in signing.items() if name == "generated/out"]
    assert await genuine(delivered(*rotated))
    assert not await genuine(delivered(*rotated), b"{ }")
    assert not await genuine(delivered(signing["ed25519/partner", 1]))  # it signs for another destination
    # The next version signs alone, and nobody has been asked again.
    later = now + timedelta(days=20)
    asking.url = "http://127.0.0.1:1/"
    assert await genuine(delivered(*rotated, at=later))
    # It is put in its place from a Secret: none of the keys is known, and they are asked for anew.
    fresh = pair("generated/out", 4)
    await world.apply(keys=(*world.desired.keys, fresh))
    await console.source._refresh()
    assert not await genuine(delivered(fresh))
    asking.url, asking.asked_at = f"{console.url}{PUBLIC}/shop/keys.json?name=out", asking.asked_at - 60
    assert await genuine(delivered(fresh))

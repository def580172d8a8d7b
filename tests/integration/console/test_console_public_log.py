"""What outsiders may read of the log, and what caches and web pages may do with it."""

import asyncio
from pathlib import Path

import pytest

from kapsel_console.app import ROUTES
from kapsel_console.caching import KEYS_CACHE
from kapsel_console.openness import Openness, Visitors
from kapsel_console.tiles import BUNDLE_CACHE, TILE_CACHE
from kapsel_console.tokens import Tokens
from kapsel_store import tlog

PATH = "/api/v1/attestation"
TOKEN = "a-token-of-this-test"
HEADS = ["/checkpoint", "/tile/0/000.p/2", f"{PATH}/sth", f"{PATH}/consistency-proof?old_size=1", f"{PATH}/keys"]
HEADS += ["/.well-known/kapsel/keys.json", "/logs/1/checkpoint", "/logs/1/tile/0/000.p/2"]
LEAVES = ["/tile/entries/000.p/2", "/logs/1/tile/entries/000.p/2"]


@pytest.fixture
def guard(serve, world, tmp_path: Path):
    """Start a console that wants a token, but for what is open to everybody."""

    async def start(level: Openness, rate: float = 1000.0):
        path = tmp_path / "token"
        path.write_text(TOKEN + "\n")
        tokens = Tokens(path)
        tokens.load()
        console = await serve(tokens=tokens, visitors=Visitors(level, rate))
        await console.source._refresh()
        return console

    return start


@pytest.mark.parametrize("level", list(Openness))
async def test_outsiders_read_what_is_open_and_nothing_else(guard, world, level: Openness) -> None:
    attempt, _ = await world.delivered(2)
    console = await guard(level)
    proofs = [f"{PATH}/proof/{attempt.id}", f"{PATH}/download-proof/{attempt.id}.tlog-proof"]
    for needed, paths in ((Openness.HEADS, HEADS), (Openness.PROOFS, proofs), (Openness.LEAVES, LEAVES)):
        for path in paths:
            status, _, response = await console.ask(path)
            assert status == (200 if level >= needed else 401), path
            # A page of any origin may read what everybody may read.
            assert (response.headers.get("Access-Control-Allow-Origin") == "*") == (level >= needed), path


async def test_everything_else_stays_closed_however_open_the_log_is(guard) -> None:
    console = await guard(Openness.LEAVES)
    closed = [route for route in ROUTES if route.opens is None]
    assert {"/api/v1/events/{id}", "/api/v1/events/{id}/erase", f"{PATH}/log"} <= {route.path for route in closed}
    for method, path in [("GET", "/"), ("GET", "/nothing"), *((route.method, route.path) for route in closed)]:
        status, content, response = await console.ask(path.replace("{id}", "1"), method=method)
        assert (status, content["code"]) == (401, "token_required"), path
        assert "Access-Control-Allow-Origin" not in response.headers
    status, _, response = await console.ask("/api/v1/events", method="OPTIONS")
    assert (status, response.headers.get("Access-Control-Allow-Methods")) == (401, None)


async def test_a_wrong_token_is_told_so_even_where_none_is_needed(guard) -> None:
    console = await guard(Openness.HEADS)
    assert (await console.problem("/checkpoint", headers={"Kapsel-Token": "not-of-this-console"}))[1] == "token_wrong"


async def test_pages_may_ask_whether_they_have_it_already(guard, world) -> None:
    await world.delivered(2)
    console = await guard(Openness.HEADS)
    status, _, response = await console.ask(
        "/checkpoint", method="OPTIONS", headers={"Origin": "https://auditor.example"}
    )
    assert (status, response.headers["Access-Control-Allow-Headers"]) == (204, "If-None-Match")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "ETag" in (await console.ask("/checkpoint"))[2].headers["Access-Control-Expose-Headers"]


async def test_those_without_a_token_share_a_rate_and_those_with_one_do_not(guard, world) -> None:
    await world.delivered(2)
    console = await guard(Openness.HEADS, rate=1.0)
    answers = await asyncio.gather(*(console.ask("/checkpoint") for _ in range(40)))
    refused = [response for status, _, response in answers if status == 429]
    assert len(refused) >= 20
    assert {response.headers["Retry-After"] for response in refused} == {"1"}
    assert (await console.ask("/checkpoint", headers={"Kapsel-Token": TOKEN}))[0] == 200


async def test_on_a_console_without_tokens_no_page_reads_what_a_setting_did_not_open(console, world) -> None:
    await world.delivered(2)
    for path in (*HEADS[:1], *LEAVES[:1]):
        assert "Access-Control-Allow-Origin" not in (await console.ask(path))[2].headers


async def test_what_was_read_before_is_not_sent_again(console, world) -> None:
    await console.source._refresh()
    await world.delivered(2)
    for path, cache in (
        ("/checkpoint", "public, max-age=1, must-revalidate"),
        ("/tile/0/000.p/2", TILE_CACHE),
        ("/tile/entries/000.p/2", BUNDLE_CACHE),
    ):
        status, content, response = await console.ask(path)
        tag = response.headers["ETag"]
        assert (status, response.headers["Cache-Control"]) == (200, cache)
        for known in (tag, f'"other", {tag}', "*"):
            status, again, response = await console.ask(path, headers={"If-None-Match": known})
            assert (status, again, response.headers["ETag"]) == (304, b"", tag)
            assert response.headers["Cache-Control"] == cache
        assert (await console.ask(path, headers={"If-None-Match": '"other"'}))[0] == 200
        status, nothing, response = await console.ask(path, method="HEAD")
        assert (status, nothing, response.headers["ETag"]) == (200, b"", tag)
        assert path.startswith("/tile/entries") or int(response.headers["Content-Length"]) == len(content)


async def test_key_sets_that_were_read_before_are_not_sent_again(console, world) -> None:
    await console.source._refresh()
    for path in ("/.well-known/kapsel/keys.json", "/.well-known/kapsel/jwks.json"):
        _, _, response = await console.ask(path)
        assert response.headers["Cache-Control"] == KEYS_CACHE
        assert (await console.ask(path, headers={"If-None-Match": response.headers["ETag"]}))[:2] == (304, b"")


async def test_a_new_head_has_another_tag(console, world) -> None:
    await world.delivered(1)
    tag = (await console.ask("/checkpoint"))[2].headers["ETag"]
    await world.delivered(1)
    assert (await console.ask("/checkpoint", headers={"If-None-Match": tag}))[0] == 200


async def test_leaves_are_packed_for_those_who_can_unpack_them(console, world) -> None:
    await world.delivered(50)
    lengths = {}
    for coding in ("gzip", "identity"):
        status, content, response = await console.ask("/tile/entries/000.p/50", headers={"Accept-Encoding": coding})
        assert (status, response.headers.get("Content-Encoding", "identity")) == (200, coding)
        assert "Accept-Encoding" in response.headers["Vary"]
        lengths[coding] = int(response.headers["Content-Length"])
        assert len(content) == lengths["identity"] if coding == "identity" else lengths["gzip"] < len(content) / 2
    _, _, response = await console.ask("/tile/0/000.p/50", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in response.headers  # hashes cannot be made smaller


async def test_an_older_log_can_still_be_read_when_another_one_follows_it(console, world) -> None:
    await world.delivered(2)
    old, _ = await console.raw("/checkpoint")
    tile, _ = await console.raw("/tile/0/000.p/2")
    log = await tlog.open_log(world.connection, "kapsel.example/next")
    note = f"kapsel.example/next\n0\n{'A' * 43}=\n\n\u2014 kapsel.example/next AAAAAAAA\n"
    head = tlog.HeadRow(
        log_id=log.id, timestamp_ms=1, tree_size=0, root=log.root, checkpoint=note, sth_signature=bytes(64),
        public_key=bytes(32),
    )  # fmt: skip
    await tlog.publish(world.connection, head)
    assert (await console.raw("/checkpoint"))[0] == note.encode()
    first, second = (await console.get(f"{PATH}/log"))["items"]
    assert (await console.raw(f"{first['read_at']}/checkpoint"))[0] == old
    assert (await console.raw(f"{first['read_at']}/tile/0/000.p/2"))[0] == tile
    assert (await console.raw(f"{second['read_at']}/checkpoint"))[0] == note.encode()
    proof = await console.get(f"{PATH}/consistency-proof?old_size=1&new_size=2&origin={first['origin']}")
    assert (proof["origin"], len(proof["proof"])) == (first["origin"], 1)
    assert (await console.problem(f"{PATH}/consistency-proof?old_size=1&new_size=2"))[:2] == (404, "not_published")
    for path in ("/logs/99/checkpoint", "/logs/01/tile/0/000.p/2", "/logs/x/tile/entries/000"):
        assert (await console.problem(path))[:2] == (404, "unknown_log")

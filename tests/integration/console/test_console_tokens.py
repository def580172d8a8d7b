"""A console that wants a token: every route asks for it, and the commands bring it."""

from pathlib import Path

import pytest

from kapsel_console.app import ROUTES
from kapsel_console.tokens import Tokens

TOKEN, OTHER = "a-token-of-this-test", "another-token-of-this-test"


@pytest.fixture
async def guarded(serve, world, tmp_path: Path):
    """A console with one token."""
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    tokens = Tokens(path)
    tokens.load()
    return await serve(tokens=tokens)


async def test_no_route_answers_without_a_token(guarded) -> None:
    for method, path in [("GET", "/"), ("GET", "/nothing"), *((route.method, route.path) for route in ROUTES)]:
        status, content, response = await guarded.ask(path.replace("{id}", "1"), method=method)
        assert (status, content["code"]) == (401, "token_required"), path
        assert response.content_type == "application/problem+json"
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="kapsel"'


async def test_a_wrong_token_is_told_so(guarded) -> None:
    status, content, response = await guarded.ask("/api/v1/events", headers={"Authorization": f"Bearer {OTHER}"})
    assert (status, content["code"]) == (401, "token_wrong")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="kapsel", error="invalid_token"'
    assert OTHER not in str(content)


async def test_both_headers_open_it(guarded) -> None:
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"Kapsel-Token": TOKEN}):
        assert (await guarded.ask("/api/v1/endpoints", headers=headers))[0] == 200
    # The API server's service proxy may leave a header of its own.
    both = {"Authorization": "Bearer of-the-api-server-itself", "Kapsel-Token": TOKEN}
    assert (await guarded.ask("/api/v1/endpoints", headers=both))[0] == 200


async def test_foreign_pages_are_refused_with_a_token_too(guarded) -> None:
    headers = {"Kapsel-Token": TOKEN, "Host": "evil.example"}
    assert (await guarded.problem("/api/v1/events", headers=headers))[:2] == (421, "unknown_host")


async def test_commands_bring_the_token_of_a_file(guarded, kapsel, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"\n{TOKEN}\n")
    wrong.write_text(OTHER)
    asked = ("get", "endpoints", "--server", guarded.url)

    given = await kapsel(*asked, "--token-file", str(right))
    named = await kapsel(*asked, KAPSEL_TOKEN_FILE=str(right))
    missing = await kapsel(*asked)
    refused = await kapsel(*asked, "--token-file", str(wrong))

    assert (given.code, named.code) == (0, 0), given.err + named.err
    assert "shop/orders" in given.out
    assert named.out == given.out
    assert (missing.code, refused.code) == (1, 1)
    assert missing.err == (
        "kapsel: this console wants a token: `Authorization: Bearer TOKEN`, or `Kapsel-Token: TOKEN`. "
        "Give the file that holds it with --token-file or KAPSEL_TOKEN_FILE.\n"
    )
    assert refused.err == (
        "kapsel: the token is none of this console's; it may have been rotated. "
        "Look at the file of --token-file or KAPSEL_TOKEN_FILE.\n"
    )


async def test_a_token_file_that_cannot_be_used_is_named(kapsel, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    asked = ("get", "endpoints", "--server", "http://127.0.0.1:1", "--token-file")
    assert "none cannot be read: No such file or directory" in (await kapsel(*asked, str(tmp_path / "none"))).err
    assert "empty holds no token" in (await kapsel(*asked, str(empty))).err

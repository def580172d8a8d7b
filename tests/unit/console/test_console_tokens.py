"""Which tokens open a console: how their file is read, how a request brings one, and what a change of the file does."""

import logging
import os
from pathlib import Path

import pytest

from kapsel_console.errors import ProblemError, TokensError
from kapsel_console.tokens import Tokens, offered, parse

OLD, NEW = "old-token-0123456789", "new-token-0123456789"


def _written(path: Path, *tokens: str) -> Path:
    """Replace the file as a mounted Secret is replaced: as a whole, by another one."""
    beside = path.with_suffix(".next")
    beside.write_text("".join(f"{token}\n" for token in tokens))
    beside.replace(path)
    return path


def _opened(path: Path) -> Tokens:
    tokens = Tokens(path)
    tokens.load()
    return tokens


def _refusal(tokens: Tokens, headers: dict[str, str]) -> str:
    with pytest.raises(ProblemError) as caught:
        tokens.require(headers)
    return caught.value.code


def test_each_line_of_the_file_is_a_token() -> None:
    assert parse(f"{OLD}\n".encode()) == [OLD]
    assert parse(f"\n  {OLD}\r\n\n{NEW}".encode()) == [OLD, NEW]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"short\n", "line 1 is no token: 16 to 512 characters"),
        (f"{OLD}\n{NEW} x\n".encode(), "line 2 is no token"),
        (b"\xff" * 20, "it is not plain ASCII text"),
    ],
)
def test_a_file_without_a_token_is_refused_without_repeating_it(content: bytes, why: str) -> None:
    with pytest.raises(TokensError, match=why) as caught:
        parse(content)
    assert "short" not in str(caught.value)
    assert NEW not in str(caught.value)


def test_a_token_comes_as_bearer_or_in_a_header_of_its_own() -> None:
    assert offered({"Authorization": f"Bearer {OLD}"}) == [OLD]
    assert offered({"Authorization": f"bEARER  {OLD} "}) == [OLD]
    assert offered({"Kapsel-Token": OLD}) == [OLD]
    assert offered({"Kapsel-Token": OLD, "Authorization": f"Bearer {NEW}"}) == [OLD, NEW]
    assert offered({"Authorization": f"Basic {OLD}"}) == []
    assert offered({"Kapsel-Token": " "}) == []


def test_a_missing_token_and_a_wrong_one_are_told_apart(tmp_path: Path) -> None:
    tokens = _opened(_written(tmp_path / "token", OLD))
    tokens.require({"Kapsel-Token": OLD})
    assert _refusal(tokens, {}) == "token_required"
    for wrong in (OLD[:-1], OLD + "x", NEW, OLD.upper(), "\udcff" * 20):
        assert _refusal(tokens, {"Kapsel-Token": wrong}) == "token_wrong"


def test_rotation_needs_no_restart(tmp_path: Path) -> None:
    path = _written(tmp_path / "token", OLD)
    tokens = _opened(path)
    assert _refusal(tokens, {"Kapsel-Token": NEW}) == "token_wrong"
    _written(path, OLD, NEW)
    tokens.require({"Kapsel-Token": OLD})
    tokens.require({"Kapsel-Token": NEW})
    _written(path, NEW)
    tokens.require({"Kapsel-Token": NEW})
    assert _refusal(tokens, {"Kapsel-Token": OLD}) == "token_wrong"


def test_another_file_with_the_same_time_and_size_is_read_too(tmp_path: Path) -> None:
    path = _written(tmp_path / "token", OLD)
    tokens = _opened(path)
    before = path.stat()
    kept = path.open()  # so that its inode cannot be used again
    _written(path, NEW)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    tokens.require({"Kapsel-Token": NEW})
    kept.close()


def test_a_file_that_is_gone_or_empty_lets_nobody_in_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _written(tmp_path / "token", OLD)
    tokens = _opened(path)
    path.unlink()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert _refusal(tokens, {"Kapsel-Token": OLD}) == "token_wrong"
    assert [record.getMessage() for record in caplog.records] == [
        "nobody is let in until there is a token: it cannot be read: No such file or directory"
    ]
    _written(path)
    assert _refusal(tokens, {"Kapsel-Token": OLD}) == "token_wrong"
    _written(path, NEW)
    tokens.require({"Kapsel-Token": NEW})


def test_no_log_line_holds_a_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _written(tmp_path / "token", OLD)
    tokens = _opened(path)
    with caplog.at_level(logging.DEBUG):
        _refusal(tokens, {"Kapsel-Token": "guess-0123456789"})
        _written(path, NEW)
        tokens.require({"Kapsel-Token": NEW})
        _written(path, "bad line with blanks")
        _refusal(tokens, {"Kapsel-Token": NEW})
    assert "read the console's tokens again" in caplog.text
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert not any(text in logged for text in (OLD, NEW, "guess-", "bad line"))

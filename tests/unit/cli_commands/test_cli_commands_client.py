"""How a command finds the console and words what it says, and what `tail` shows of a stream that comes out of order."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kapsel_cli.client import Client, find_running
from kapsel_cli.data_dir import DataDir, Running
from kapsel_cli.errors import CliError, RefusedError, UnreachableError
from kapsel_cli.following import follow
from kapsel_cli.tail import MOST_AT_ONCE, Follower
from kapsel_cli.transport import Answer, HttpTransport
from kapsel_console.codes import PROBLEMS


def test_a_url_that_is_none_is_refused() -> None:
    for wrong in ("127.0.0.1:8081", "ftp://x", "http://", "http://a:b@c", "http://x:99999", "http://x?y", "http://["):
        with pytest.raises(CliError, match="Write it like"):
            HttpTransport(wrong, "")
    assert HttpTransport("https://kapsel.example/prefix/", "").server == "https://kapsel.example/prefix"


def test_a_problem_becomes_a_sentence_and_a_next_step() -> None:
    client = Client(HttpTransport("http://127.0.0.1:1", ""))
    body = {"code": "unknown_event", "detail": "there is no event 1"}
    error = client.refusal(Answer(status=404, headers={}, body=json.dumps(body).encode()))
    assert isinstance(error, RefusedError)
    assert str(error) == "there is no event 1. List them with `kapsel get events`."
    assert not error.temporary
    for other in (b"<html>", b"[]", b'"x"', b"{}", b"\xff"):
        assert isinstance(client.refusal(Answer(status=404, headers={}, body=other)), UnreachableError)


def test_every_code_that_a_command_can_meet_has_a_next_step_of_its_own() -> None:
    client = Client(HttpTransport("http://127.0.0.1:1", ""))
    of_a_newer_console = _next_step(client, "of_a_newer_console")
    # If one of these is met, the two are of different versions, too.
    versions = {"parameter_unknown", "unknown_route", "method_not_allowed", "request_refused"}
    without = {code for code in PROBLEMS if _next_step(client, code) == of_a_newer_console}
    assert without == versions | {
        "cross_origin",  # asked by pages
        "no_head", "not_published", "not_ready", "unknown_log", "unknown_tile",  # by readers of the log and its keys
        "no_signing_keys",  # by destinations
    }  # fmt: skip


def _next_step(client: Client, code: str) -> str:
    answer = Answer(status=400, headers={}, body=json.dumps({"code": code, "detail": "x"}).encode())
    return client.refusal(answer).next_step


def test_the_nearest_instance_upwards_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"pid": 1, "ingest": "http://a", "console": "http://b", "metrics": {}}
    for folder in (tmp_path, tmp_path / "a"):
        (folder / ".kapsel").mkdir(parents=True)
        (folder / ".kapsel" / "up.json").write_text(json.dumps({**content, "pid": len(folder.parts)}))
    below = tmp_path / "a" / "b" / "c"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_running(None).pid == len((tmp_path / "a").parts)
    assert find_running(tmp_path / ".kapsel").pid == len(tmp_path.parts)
    with pytest.raises(UnreachableError, match="no kapsel is running on"):
        find_running(tmp_path / "nowhere")


def test_a_kapsel_that_is_starting_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, running = DataDir(tmp_path / ".kapsel"), Running(pid=1, ingest="http://a", console="http://b", metrics={})
    data.take()
    monkeypatch.setattr("time.sleep", lambda _: data.write_state(running))
    assert find_running(data.path) == running
    assert f"`kapsel up` (pid {os.getpid()}) is starting on {data.path}; waiting" in capsys.readouterr().err
    data.give_back()


def test_a_kapsel_that_ends_before_it_has_started_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir(tmp_path / ".kapsel")
    data.take()
    monkeypatch.setattr("time.sleep", lambda _: data.give_back())
    with pytest.raises(UnreachableError, match="no kapsel is running on"):
        find_running(data.path)


def test_a_kapsel_that_takes_too_long_to_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, clock = DataDir(tmp_path / ".kapsel"), iter(range(0, 1000, 10))
    data.take()
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with pytest.raises(UnreachableError, match=f"pid {os.getpid()}. is still starting"):
        find_running(data.path)
    monkeypatch.undo()
    data.give_back()


class Stream:
    """A console whose attempts come in any order of their ids; newest first, as the real one lists them."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def items(self, path: str, limit: int, **query: str | None) -> Iterator[dict[str, Any]]:
        for number in sorted(self.ids, reverse=True)[:limit]:
            yield {"id": str(number)}


def test_an_attempt_that_is_stored_late_is_shown_once() -> None:
    stream = Stream()
    follower = Follower(stream, None)  # type: ignore[arg-type]
    stream.ids = [10, 20]
    assert [one["id"] for one in follower.look()] == ["10", "20"]
    stream.ids += [30, 15]
    assert [one["id"] for one in follower.look()] == ["15", "30"]
    assert follower.look() == []
    assert not follower.missed


def test_more_than_can_be_shown_is_said() -> None:
    stream = Stream()
    stream.ids = [1]
    follower = Follower(stream, None)  # type: ignore[arg-type]
    follower.look()
    stream.ids += range(2, MOST_AT_ONCE + 10)
    assert len(follower.look()) == MOST_AT_ONCE
    assert follower.missed
    stream.ids.append(MOST_AT_ONCE + 10)
    assert len(follower.look()) == 1
    assert not follower.missed


def test_a_console_that_is_away_is_waited_for_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    busy = RefusedError("the database is away", "Try again", code="storage_unavailable", temporary=True)
    gone = UnreachableError("cannot reach it", "Start it")
    outcomes: list[CliError | int] = [1, gone, busy, gone, 2, RefusedError("no such", "Look", code="unknown_event")]

    def look() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, CliError):
            raise outcome
        return outcome

    found = follow(look, 0)
    assert [next(found), next(found)] == [1, 2]
    assert capsys.readouterr().err.splitlines() == [
        "kapsel: cannot reach it; still looking.",
        "kapsel: the console is back.",
    ]
    with pytest.raises(RefusedError, match="no such"):
        next(found)

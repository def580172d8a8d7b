"""Log lines: always one JSON object each, with what is bound, without secrets, whatever is logged."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from kapsel_runtime.logs import Lines, bind, one_line

LINES = Lines("receiver", "host-1")


def line(
    message: object = "hello", *args: object, error: BaseException | None = None, **extra: object
) -> dict[str, object]:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.getLogger("example").makeRecord(
        "example", logging.INFO, "file.py", 1, message, args, exc_info, extra=extra
    )
    text = LINES.format(record)
    assert "\n" not in text
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(parsed, dict)
    return parsed


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_a_line_says_when_how_bad_who_and_what() -> None:
    found = line("took %d of %s", 3, "four", status=200)
    moment = datetime.strptime(str(found.pop("ts")), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert found == {
        "level": "info",
        "component": "receiver",
        "instance": "host-1",
        "message": "took 3 of four",
        "logger": "example",
        "status": 200,
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
anything = (
    json_values | st.binary() | st.tuples(st.dates()) | st.builds(Unspeakable) | st.dictionaries(st.tuples(), st.text())
)


@given(message=st.text(st.characters()), field=anything)
def test_whatever_is_logged_becomes_one_json_object(message: str, field: object) -> None:
    found = line(message, field=field)
    assert found["message"] == message or "://" in message or "assword=" in message
    assert "field" in found


def test_arguments_that_do_not_fit_the_message_lose_no_line() -> None:
    assert line("%d things", "many")["message"] == "%d things"
    assert line("%s", Unspeakable())["message"] == "%s"
    assert line(Unspeakable())["message"] == "<Unspeakable>"


def test_a_value_that_refers_to_itself_loses_no_other_field() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert line(endless=endless, status=200)["status"] == "200"


def test_a_caller_cannot_overwrite_what_identifies_the_line() -> None:
    with bind(component="console", ts="never"):
        found = line(level="none", instance="other")
    assert (found["component"], found["level"], found["instance"]) == ("receiver", "info", "host-1")
    assert found["ts"] != "never"


def test_ids_paths_and_times_are_written_as_text() -> None:
    found = line(id=UUID(int=7), path=Path("/run/x"), at=datetime(2026, 1, 2, tzinfo=UTC))
    assert found["id"] == "00000000-0000-0000-0000-000000000007"
    assert (found["path"], found["at"]) == ("/run/x", "2026-01-02T00:00:00+00:00")


def test_secrets_and_bytes_are_not_written() -> None:
    found = json.dumps(
        line("key %s", SecretStr("hunter2"), secret=SecretStr("hunter2"), seed=b"hunter2", nested=[b"hunter2"])
    )
    assert "hunter2" not in found
    assert "<7 bytes>" in found


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://kapsel:hunter2@db:5432/kapsel",
        "postgresql://:hunter2@db/kapsel",
        "postgresql://db/kapsel?user=kapsel&password=hunter2&sslmode=require",
        "https://kapsel:hunter2@example.com/hooks",
    ],
)
def test_a_password_in_a_url_is_cut_out_of_messages_fields_and_stacks(url: str) -> None:
    found = json.dumps(line("cannot use %s", url, url=url, error=raised(ValueError(url))))
    assert "hunter2" not in found
    assert found.count("***") >= 4


def test_a_url_without_a_password_stays_as_it_is() -> None:
    url = "http://127.0.0.1:8080/ingest/a@b?x=1"
    assert line("at %s", url)["message"] == f"at {url}"


def test_an_error_is_one_line_and_a_stack() -> None:
    found = line("failed", error=raised(ValueError("first\nsecond")))
    assert found["error"] == "ValueError: first second"
    assert str(found["stack"]).startswith("Traceback")
    assert "test_runtime_logs.py" in str(found["stack"])


def test_an_error_group_names_its_members() -> None:
    group = ExceptionGroup("tasks", [ValueError("a"), ExceptionGroup("more", [KeyError("b"), RuntimeError()])])
    assert one_line(group) == "ValueError: a; KeyError: 'b'; RuntimeError"


def test_bound_fields_are_on_each_line_inside_and_on_none_after() -> None:
    with bind(event_id="e", attempt=1):
        with bind(attempt=2, delivery_id="d"):
            inner = line()
        outer = line()
    assert (inner["event_id"], inner["delivery_id"], inner["attempt"]) == ("e", "d", 2)
    assert outer["attempt"] == 1
    assert "delivery_id" not in outer
    assert "event_id" not in line()


def test_bound_fields_end_when_the_work_fails() -> None:
    with pytest.raises(ValueError, match="x"), bind(event_id="e"):
        raise ValueError("x")
    assert "event_id" not in line()


async def test_tasks_do_not_see_each_others_fields() -> None:
    both = asyncio.Barrier(2)

    async def work(event_id: str) -> object:
        with bind(event_id=event_id):
            await both.wait()
            return line()["event_id"]

    assert list(await asyncio.gather(work("a"), work("b"))) == ["a", "b"]

"""Where an expression failed: at the smallest part that fails by itself, and without a word of what the event says."""

from datetime import UTC, datetime

import pytest

from kapsel_expressions import syntax
from kapsel_expressions.event import Event
from kapsel_expressions.expression import Expression, Failed, Value, compile_source
from kapsel_expressions.places import text

BODY = {
    "action": "s3cr3t",
    "none": None,
    "empty": [],
    "items": [{"sku": "A", "n": 1}, {"sku": "B"}],
    "by": {"A": 1},
    "one": 1,
}


def event(body: object = BODY) -> Event:
    return Event(
        id="0191",
        type="push",
        endpoint="orders",
        namespace="shop",
        received_at=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
        headers={"x-github-event": "push"},
        body=body,
    )


def compiled(source: str) -> Expression:
    expression = compile_source(source, "json")
    assert isinstance(expression, Expression), expression
    return expression


@pytest.mark.parametrize(
    "marked",
    [
        "event.body.¦gone == 1",
        "event.body.action == 's3cr3t' && event.body.¦gone.deep == 1",
        "event.body.action == 'other' || event.body.¦gone == 1",
        "event.body.¦gone == 2 ? event.body.also.gone : event.body.never.there",
        "event.body.one == 1 ? event.body.¦gone : event.body.never.there",
        "event.body.one == 2 ? event.body.never.there : event.body.¦gone",
        "!has(event.body.¦gone.deep)",
        "event.body.one ¦+ 2.5 > 1.0",
        "event.body.none.¦deep == 1",
        "event.body.items.map(i, i.¦n)",
        "event.body.items.map(i, i.sku == 'B', i.¦n)",
        "event.body.items.all(i, event.body.items.all(j, j.¦n + i.n > 0))",
        "event.body.items.all(i, i.¦n > 0)",
        "event.body.items¦[7].sku == 'A'",
        "event.body.items¦[event.body.one + 6]",
        "event.body.by¦[event.body.action] == 1",
        "1 ¦/ size(event.body.empty) == 1",
        "¦int(event.body.action) == 1",
        "event.body.action.¦startsWith(event.body.one)",
        '{"a": event.body.one, "b": [event.body.one, event.body.¦gone]}',
        "-event.body.¦gone < 0 || !(event.body.one == 1)",
        "// what it is\nevent.body.¦gone",
        "event.headers['x-github-event'] == 'push' && event.headers¦['x-none'] == 'a'",
    ],
)
def test_a_failure_is_placed_at_the_smallest_part_that_fails(marked: str) -> None:
    failed = compiled(marked.replace("¦", "")).trace(event())
    assert isinstance(failed, Failed)
    assert failed.at == marked.index("¦")
    assert failed.said == f"{failed.detail} (character {failed.at + 1})"


@pytest.mark.parametrize(
    "source",
    [
        "event.body.by[event.body.action] == 1",
        "event.body[event.body.action] == 1",
        "duration(event.body.action) == duration('1s')",
        "int(event.body.action) == 1",
        "{event.body.action: 1}[event.body.action + 'x'] == 1",
        "event.body.action > event.body.one",
    ],
)
def test_what_the_event_says_is_in_no_failure(source: str) -> None:
    failed = compiled(source).trace(event())
    assert isinstance(failed, Failed)
    assert "s3cr3t" not in failed.said


def test_a_name_that_the_expression_writes_down_is_told() -> None:
    failed = compiled("event.body.gone").trace(event())
    assert failed == Failed(reason="missing", detail="the event has no gone", at=11)


def test_a_result_of_another_sort_is_placed_at_what_gives_it() -> None:
    expression = compile_source("event.body.action", "bool")
    assert isinstance(expression, Expression)
    failed = expression.trace(event())
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.at) == ("type", 11)


def test_no_place_is_looked_for_where_that_would_be_much_work() -> None:
    expression = compiled("event.body.all(i, event.body.all(j, i == j)) && event.body[0].gone == 1")
    failed = expression.trace(event(["x"] * 400))
    assert failed == Failed(reason="type", detail=failed.detail, at=None)


def test_a_trace_of_what_does_not_fail_is_its_value() -> None:
    assert compiled("event.body.one").trace(event()) == Value(value=1)


@pytest.mark.parametrize(
    "source",
    [
        "event.body.a == 1 && !(event.body['x-b'] in [1, 2u, 0x3]) || -event.body.c < 1.5e3",
        'event.body.l.map(i, i.n > 1, i.s + "\\"x\'").size() % 2 == 0',
        "event.body.s.matches(r'^a$') == false",
        "has(event.body.a.b) ? {'k': null, \"l\": [true, false,]} : dyn(event.body.m[event.body.n])",
        "size(event.body.l) * 2 - 1 / 3 >= 4 && event.receivedAt.getHours() <= 3",
    ],
)
def test_a_part_written_out_is_the_same_part(source: str) -> None:
    once = text(syntax.parse(source))
    assert text(syntax.parse(once)) == once
    assert isinstance(compile_source(once, "json"), Expression)

"""docs/shaping.md: its examples are what the expressions make of its event, and its lists are those of the code."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
import yaml

from kapsel_deliverer.shapes import Made, made, shape
from kapsel_expressions import cost, event, syntax
from kapsel_expressions.event import FIELDS, Event, type_header, type_of
from kapsel_expressions.expression import FUNCTIONS, LONGEST, Expression, Failed, Value, compile_source
from kapsel_resources.kinds.webhook_endpoint import Destination
from kapsel_resources.manifests import parse
from kapsel_store.rows import DestinationRow, Scheme

PAGE = (Path(__file__).parents[3] / "docs" / "shaping.md").read_text(encoding="utf-8")
BODY = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
EVENT = Event(
    id="01a1ff96-97c0-75ea-b286-80f007a95ca3",
    type="push",
    endpoint="orders",
    namespace="shop",
    received_at=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
    headers={"x-github-event": "push"},
    body=BODY,
)
FILTERS = re.findall(r"^\| `(.+?)` \| (`true`|`false`|an error) \|", PAGE, re.MULTILINE)


def _row(destination: Destination) -> DestinationRow:
    row = DestinationRow(id=UUID(int=0), endpoint_id=UUID(int=0), name="chat", url=destination.url)
    return replace(row, transform=destination.transform.row() if destination.transform else None)


def test_the_page_has_examples() -> None:
    assert len(FILTERS) >= 10


@pytest.mark.parametrize(("source", "result"), FILTERS)
def test_an_example_of_a_filter_gives_what_the_page_says(source: str, result: str) -> None:
    compiled = compile_source(source, "bool")
    assert isinstance(compiled, Expression), compiled
    value = compiled.evaluate(EVENT)
    if result == "an error":
        assert isinstance(value, Failed)
    else:
        assert value == Value(value=result == "`true`")


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_manifest_of_the_page_is_read_without_a_problem(block: str) -> None:
    for document in yaml.safe_load_all(block):
        parsed = parse(document)
        assert not isinstance(parsed, list), parsed
        for destination in parsed.spec.destinations:
            if destination.transform is not None:
                sent = made(shape(_row(destination)), EVENT)
                assert isinstance(sent, Made), sent
                assert sent.body is not None
                assert sent.body.content.decode() == re.search(r"```json made\n(.*?)\n```", PAGE, re.DOTALL)[1]
                assert sent.headers == {"x-ref": "refs/heads/main"}
            assert destination.filter is None or isinstance(compile_source(destination.filter, "bool"), Expression)


def test_the_page_lists_what_there_is() -> None:
    words = set(re.findall(r"`([\w.]+)`", PAGE))
    assert words >= {f"event.{name}" for name in FIELDS}
    assert words >= {*FUNCTIONS, *syntax.MACROS}
    for number in (f"{LONGEST:,} characters", f"{syntax.DEEPEST} levels", f"{event.DEEPEST} lists and maps"):
        assert number in PAGE, number
    assert (cost.WORK, cost.MADE) == (2_000_000, 16 * 1024 * 1024)


def test_filter_and_map_take_lists_as_long_as_the_page_says() -> None:
    tree = syntax.parse("event.body.items.filter(i, i.n > 1).size() > 1")
    assert cost.admits(tree, cost.Size(1_900, 10_000))
    assert not cost.admits(tree, cost.Size(3_000, 10_000))


def test_the_page_tells_where_every_scheme_names_the_type_of_an_event() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (header|body) (`.+) \|$", PAGE, re.MULTILINE)
    told = {
        scheme: (kind, re.findall(r"`(.+?)`", where))
        for named, kind, where in rows
        for scheme in named.strip("`").split("`, `")
    }
    everywhere = {place for kind, where in told.values() if kind == "body" for place in where}
    for scheme in get_args(Scheme):
        kind, places = told.get(scheme, ("", []))
        assert type_header(scheme) == (places[0].lower() if kind == "header" else None)
        named = {place for place in everywhere if type_of(scheme, {}, _nested(place)) == "a type"}
        assert named == (set(places) if kind == "body" else set()), scheme


def _nested(place: str) -> Any:
    return reduce(lambda inner, name: {name: inner}, reversed(place.split(".")), "a type")

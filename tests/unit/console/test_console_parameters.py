"""Query parameters: what is understood comes back exactly, everything else is a problem and never an exception."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from kapsel_console.errors import ProblemError
from kapsel_console.parameters import DEFAULT_LIMIT, Parameters, id_cursor, name_cursor
from kapsel_store.states import State

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NAMES = ("limit", "cursor", "since", "state", "endpoint", "event", "old_size")
WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: not {"/", "\0"} & set(text))


def asked(**query: str) -> Parameters:
    return Parameters(MultiDict(query), *NAMES)


@given(st.uuids())
def test_a_cursor_of_an_id_comes_back(last: UUID) -> None:
    assert asked(cursor=id_cursor(last)).id_cursor() == last


@given(WORDS, WORDS)
def test_a_cursor_of_a_name_comes_back(namespace: str, name: str) -> None:
    cursor = name_cursor(namespace, name)
    if len(cursor) <= 1024:
        assert asked(cursor=cursor).name_cursor() == (namespace, name)


@given(st.text() | st.from_regex(r"[0-9a-zA-Z_=-]{0,40}", fullmatch=True))
def test_no_text_makes_a_parameter_fail_in_another_way(text: str) -> None:
    reads: list[tuple[str, Callable[[Parameters], object]]] = [
        ("limit", Parameters.limit),
        ("cursor", Parameters.id_cursor),
        ("cursor", Parameters.name_cursor),
        ("since", lambda one: one.since(NOW)),
        ("state", Parameters.states),
        ("endpoint", Parameters.endpoint),
        ("old_size", lambda one: one.size("old_size")),
        ("event", lambda one: one.id("event")),
    ]
    for name, read in reads:
        with suppress(ProblemError):
            read(asked(**{name: text}))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15m", NOW - timedelta(minutes=15)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("0", NOW),
        ("2026-01-31T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-01-31t13:00:00.5+01:00", NOW + timedelta(milliseconds=500)),
        ("1960-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999999h", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_since_means_a_moment(text: str, moment: datetime) -> None:
    assert asked(since=text).since(NOW) == moment


def test_what_is_absent_has_its_default() -> None:
    none = asked()
    assert (none.limit(), none.id_cursor(), none.name_cursor()) == (DEFAULT_LIMIT, None, ("", ""))
    assert (none.since(NOW), none.states(), none.endpoint()) == (None, None, None)


def test_states_are_a_list() -> None:
    assert asked(state="pending,sending").states() == [State.PENDING, State.SENDING]

"""What an expression makes of an event: a value, or a failure that is a value."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_expressions.cost import Size, admits, worst
from kapsel_expressions.event import ABSENT, DEEPEST, Event, named_headers, parse_body, type_of
from kapsel_expressions.expression import Expression, Failed, Sort, Value, compile_source
from kapsel_expressions.syntax import parse

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def event(body: object = ABSENT, *, headers: Mapping[str, str] | None = None, type: str | None = "push") -> Event:  # noqa: A002
    return Event(
        id="0191",
        type=type,
        endpoint="orders",
        namespace="shop",
        received_at=NOW,
        headers=headers or {"x-github-event": "push"},
        body=body,
    )


def made(source: str, of: Event, sort: Sort = "bool") -> Value | Failed:
    compiled = compile_source(source, sort)
    assert isinstance(compiled, Expression), compiled
    return compiled.evaluate(of)


@pytest.mark.parametrize(
    "source",
    [
        "event.id == '0191' && event.type == 'push' && event.endpoint == 'orders' && event.namespace == 'shop'",
        "event.receivedAt < timestamp('2027-01-01T00:00:00Z') && event.receivedAt.getFullYear() == 2026",
        "event.headers['x-github-event'] == 'push' && !('x-other' in event.headers)",
        "event.body.action == 'created' && event.body.user.id == 7",
        "event.body.items.exists(i, i.sku.startsWith('A')) && event.body.items.filter(i, i.n > 1).size() == 1",
        "!has(event.body.gone) || event.body.gone.deep == 1",
        "event.body.gone == 1 || event.body.action == 'created'",
        "event.body.nothing == null && event.body.price == 1.5",
    ],
)
def test_an_event_shows_all_its_variables(source: str) -> None:
    body = {
        "action": "created",
        "user": {"id": 7},
        "items": [{"sku": "A1", "n": 1}, {"sku": "B2", "n": 2}],
        "nothing": None,
        "price": 1.5,
    }
    assert made(source, event(body)) == Value(value=True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("event.body.gone == 1", "missing"),
        ("has(event.body.gone.deep)", "missing"),
        ("event.headers['x-none'] == 'a'", "missing"),
        ("event.body.list[7] == 1", "missing"),
        ("event.body.action > 1", "type"),
        ("event.body.action", "type"),
        ("1 / size(event.body.empty) == 1", "arithmetic"),
        ("9223372036854775807 + event.body.one == 1", "arithmetic"),
        ("int(event.body.action) == 1", "failed"),
        ("event.body.action.matches('(')", "failed"),
    ],
)
def test_what_an_event_has_not_is_a_failure_and_no_exception(source: str, reason: str) -> None:
    body = {"action": "created", "empty": [], "list": [], "one": 1}
    failed = made(source, event(body))
    assert isinstance(failed, Failed)
    assert failed.reason == reason


def test_an_event_without_json_has_no_body_and_one_of_a_nameless_provider_no_type() -> None:
    assert made("has(event.body)", event()) == Value(value=False)
    assert made("has(event.type)", event(type=None)) == Value(value=False)
    assert isinstance(made("event.body.a == 1", event()), Failed)


@pytest.mark.parametrize(("source", "sort"), [("event.body.a", "string"), ("event.receivedAt", "json")])
def test_a_result_of_another_sort_is_a_failure(source: str, sort: Sort) -> None:
    failed = made(source, event({"a": 1}), sort)
    assert isinstance(failed, Failed)
    assert failed.reason == "type"


def test_an_event_too_large_for_an_expression_is_a_failure_and_is_not_begun() -> None:
    pairs = "event.body.l.exists(a, event.body.l.exists(b, a == b && a == 'x'))"
    assert made(pairs, event({"l": [str(n) for n in range(50)]})) == Value(value=False)
    failed = made(pairs, event({"l": [str(n) for n in range(100_000)]}))
    assert isinstance(failed, Failed)
    assert failed.reason == "too_large"


def test_a_large_event_is_no_matter_to_an_expression_that_looks_at_little_of_it() -> None:
    body = {"action": "created", "l": [{"n": n} for n in range(100_000)]}
    assert made("event.body.action == 'created'", event(body)) == Value(value=True)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_bound_of_the_work_grows_with_the_event(values: int, more: int, characters: int, longer: int) -> None:
    tree = parse("event.body.l.filter(x, x.n > 1).map(y, y.s + event.body.s).exists(z, event.body.l.all(w, w == z))")
    smaller, larger = Size(values, characters), Size(values + more, characters + longer)
    assert worst(tree, smaller).work <= worst(tree, larger).work
    assert admits(tree, smaller) or not admits(tree, larger)


@given(st.lists(st.text(max_size=20), max_size=12), st.text(max_size=20))
def test_what_is_made_is_never_larger_than_its_bound(texts: list[str], text: str) -> None:
    body = {"l": texts, "s": text}
    source = "event.body.l.map(x, [x, x + x + event.body.s])"
    value = made(source, event(body), "json")
    if isinstance(value, Failed):  # too large, or a surrogate that no text of CEL can hold
        return
    assert isinstance(value.value, list)
    characters = sum(len(each) for pair in value.value for each in pair)
    assert characters <= worst(parse(source), event(body).pruned((("body", "l"), ("body", "s")))[1]).size.characters


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        b"a=1&b=2",
        b"\xff{}",
        b"{} {}",
        b'{"a": NaN}',
        b"[" * 100_000,
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1),
        "{}".encode("utf-16"),
    ],
)
def test_a_body_that_is_no_json_is_absent(body: bytes) -> None:
    assert parse_body(body) is ABSENT


def test_a_body_that_is_json_is_parsed() -> None:
    deep = b"[" * DEEPEST + b"]" * DEEPEST
    assert parse_body(deep) is not ABSENT
    assert parse_body(b"[" + b"[],[{}]," * 100 + b"1]") is not ABSENT
    assert parse_body(b'{"a": [1, 2.5, null, "\\u00e9"]}') == {"a": [1, 2.5, None, "é"]}
    assert parse_body(b"null") is None


def test_a_text_that_is_no_unicode_is_a_failure() -> None:
    assert isinstance(made("event.body.s == 'a'", event(parse_body(b'{"s": "\\ud800"}'))), Failed)


def test_stored_headers_are_named_in_lower_case_and_joined() -> None:
    stored = json.dumps([["X-A", "1"], ["x-a", "2"], ["X-B", "3"]])
    assert named_headers(stored) == {"x-a": "1, 2", "x-b": "3"}


@pytest.mark.parametrize(
    ("scheme", "headers", "body", "named"),
    [
        ("github", {"x-github-event": "push"}, ABSENT, "push"),
        ("shopify", {"x-shopify-topic": "orders/create"}, {}, "orders/create"),
        ("stripe", {}, {"type": "charge.succeeded"}, "charge.succeeded"),
        ("standardWebhooks", {}, {"type": "user.created"}, "user.created"),
        ("slack", {}, {"type": "event_callback", "event": {"type": "message"}}, "message"),
        ("slack", {}, {"type": "url_verification"}, "url_verification"),
        ("gitlab", {"x-gitlab-event": "Push Hook"}, {}, "Push Hook"),
        ("sns", {"x-amz-sns-message-type": "Notification"}, {}, "Notification"),
        ("linear", {"linear-event": "Issue"}, {}, "Issue"),
        ("meta", {}, {"object": "whatsapp_business_account"}, "whatsapp_business_account"),
        ("okta", {}, {"eventType": "com.okta.event_hook"}, "com.okta.event_hook"),
        ("zoom", {}, {"event": "meeting.started"}, "meeting.started"),
        ("paddle", {}, {"event_type": "transaction.paid"}, "transaction.paid"),
        ("square", {}, {"type": "payment.updated"}, "payment.updated"),
        ("discord", {}, {"type": 1, "event": {"type": "APPLICATION_AUTHORIZED"}}, "APPLICATION_AUTHORIZED"),
        ("pagerduty", {}, {"event": {"event_type": "incident.triggered"}}, "incident.triggered"),
        ("docusign", {}, {"event": "envelope-completed"}, "envelope-completed"),
        ("stripe", {}, {"type": 1}, None),
        ("stripe", {}, ABSENT, None),
        ("hmac", {"x-github-event": "push"}, {"type": "a"}, None),
    ],
)
def test_the_type_of_an_event_is_where_its_provider_puts_it(
    scheme: str, headers: dict[str, str], body: object, named: str | None
) -> None:
    assert type_of(scheme, headers, body) == named

"""Idempotency keys: what they are made of, and what has none."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kapsel_receiver.idempotency import key
from kapsel_store.event_names import encode
from kapsel_store.rows import Idempotency, Scheme

PROVIDER = Idempotency(source="Provider")


def make(
    idempotency: Idempotency | None, headers: dict[str, str], body: bytes = b"{}", scheme: Scheme = "github"
) -> bytes | None:
    return key(idempotency, scheme, CIMultiDict(headers), body, hashlib.sha256(body).digest())


@given(
    st.lists(st.tuples(st.sampled_from(["header", "content", "provider"]), st.lists(st.binary(max_size=6))), max_size=2)
)
def test_different_sources_or_values_never_share_a_key(inputs: list[tuple[str, list[bytes]]]) -> None:
    keys = {encode(source, values) for source, values in inputs}
    assert len(keys) == len({(source, tuple(values)) for source, values in inputs})


def test_moving_a_boundary_between_values_changes_the_key() -> None:
    assert encode("header", [b"ab", b"c"]) != encode("header", [b"a", b"bc"])
    assert encode("header", [b"a"]) != encode("header", [b"a", b""])


def test_an_endpoint_without_idempotency_gives_no_key() -> None:
    assert make(None, {"X-GitHub-Delivery": "1"}) is None


def test_a_header_names_the_event_whatever_the_case_of_its_name() -> None:
    by_header = Idempotency(source="Header", header="X-Event")
    first = make(by_header, {"x-event": "1"})
    assert first is not None
    assert len(first) == 32
    assert first == make(by_header, {"X-EVENT": "1"}, b"another body")
    assert first != make(by_header, {"X-Event": "2"})
    assert first != make(Idempotency(source="Header", header="X-Other"), {"X-Other": "1"})


def test_a_missing_or_empty_id_gives_no_key_so_that_the_event_is_kept() -> None:
    by_header = Idempotency(source="Header", header="X-Event")
    assert make(by_header, {}) is None
    assert make(by_header, {"X-Event": ""}) is None
    assert make(PROVIDER, {}) is None
    assert make(PROVIDER, {}, b"[1]", "stripe") is None


def test_content_is_the_same_for_the_same_bytes_only() -> None:
    content = Idempotency(source="Content")
    assert make(content, {"X": "1"}, b"a") == make(content, {"X": "2"}, b"a")
    assert make(content, {}, b"a") != make(content, {}, b"a ")


def test_each_provider_s_own_id_is_used() -> None:
    by_headers: list[tuple[Scheme, str]] = [
        ("github", "X-GitHub-Delivery"),
        ("shopify", "X-Shopify-Webhook-Id"),
        ("standardWebhooks", "webhook-id"),
    ]
    for scheme, header in by_headers:
        assert make(PROVIDER, {header: "7"}, b"a", scheme) == make(PROVIDER, {header: "7"}, b"b", scheme) is not None
        assert make(PROVIDER, {header: "7"}, scheme=scheme) != make(PROVIDER, {header: "8"}, scheme=scheme)
    for scheme, field in (("stripe", "id"), ("slack", "event_id")):
        body = json.dumps({field: "7", "try": 1}).encode()
        again = json.dumps({"try": 2, field: "7"}).encode()
        assert make(PROVIDER, {}, body, scheme) == make(PROVIDER, {}, again, scheme) is not None


@pytest.mark.parametrize(
    ("scheme", "body"),
    [
        (
            "hubspot",
            '[{"eventId": 1, "attemptNumber": %d}, {"eventId": 1, "occurredAt": 6, "attemptNumber":%d}]',
        ),
        ("docusign", '{"event":"envelope-sent","retryCount":%d,"generatedDateTime":"2026-03-01T12:00:00Z","x":%d}'),
    ],
)
def test_a_resend_that_counts_its_tries_is_the_same_event_and_nothing_else_is(scheme: Scheme, body: str) -> None:
    second = 0 if scheme == "docusign" else 12
    first = make(PROVIDER, {}, (body % (0, 0)).encode(), scheme)
    assert first == make(PROVIDER, {}, (body % (12, second)).encode(), scheme) is not None
    for text, other in (
        ("sent", "completed"),
        ("12:00", "12:01"),
        ('"occurredAt": 6', '"occurredAt": 7'),
        ("Id", "ID"),
    ):
        if text in body:
            assert make(PROVIDER, {}, (body.replace(text, other) % (0, 0)).encode(), scheme) not in (first, None)
    assert make(PROVIDER, {}, b'{"no": "count"}', scheme) is None


def test_of_two_ids_the_one_that_was_signed_counts() -> None:
    svix = {"svix-signature": "v1,a", "svix-id": "7"}
    assert make(PROVIDER, svix, scheme="standardWebhooks") is not None
    assert make(PROVIDER, svix, scheme="standardWebhooks") == make(
        PROVIDER, svix | {"webhook-id": "8"}, scheme="standardWebhooks"
    )


def test_a_scheme_without_provider_id_gives_no_key() -> None:
    for scheme in ("hmac", "basic", "bearer", "none"):
        assert make(PROVIDER, {"X-GitHub-Delivery": "1"}, b'{"id": "1"}', scheme) is None


def test_a_hostile_document_gives_no_key_and_no_error() -> None:
    for body in (b"[" * 200_000, b"\xff\xfe", b'{"id": 5}', b'{"id": ""}', b"9" * 6000, b'{"id": null}', b""):
        assert make(PROVIDER, {}, body, "stripe") is None
    assert make(PROVIDER, {}, b'{"id": "\\ud800"}', "stripe") is not None


@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_body_and_header_have_a_defined_result(body: bytes, value: str) -> None:
    for scheme in ("github", "stripe", "slack"):
        found = make(PROVIDER, {"X-GitHub-Delivery": value}, body, scheme)
        assert found is None or len(found) == 32

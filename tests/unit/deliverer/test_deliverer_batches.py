"""Who goes with whom, how that is written, and what an answer says of each."""

import base64
import gzip
import json
from dataclasses import replace
from itertools import pairwise
from uuid import UUID, uuid4

import claims
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer import batches
from kapsel_deliverer.batches import Item
from kapsel_deliverer.exchange import Response, redacted
from kapsel_deliverer.lane import Leased
from kapsel_store.rows import Batch, Policy

POLICY = Policy(max_attempts=12)
FIRST, SECOND = str(UUID(int=1)), str(UUID(int=2))


def leased(number: int = 1) -> Leased:
    return Leased(delivery=claims.claimed(number=number), lease_id=uuid4(), start_by=0.0, probe=False)


def sizes(numbers: list[int], most: int, policy: Policy = POLICY) -> list[tuple[int, int]]:
    """Return the number of the try and the size of each request."""
    groups = batches.together([leased(number) for number in numbers], Batch(max_events=most), policy)
    return [(group[0].delivery.number, len(group)) for group in groups]


def answer(body: bytes) -> Response:
    return Response(200, "[]", (), body, len(body), bytes(32), whole=True)


def written(body: bytes, headers: dict[str, str] | None = None) -> dict[str, object]:
    item = batches.item(FIRST, headers or {"webhook-id": FIRST}, body, bytes(32))
    (said,) = json.loads(batches.body([item]))
    return said


def test_first_tries_go_together_as_many_as_may() -> None:
    assert sizes([1] * 25, 10) == [(1, 10), (1, 10), (1, 5)]


def test_each_further_try_is_made_in_half_the_company() -> None:
    assert sizes([2] * 10, 10) == [(2, 5), (2, 5)]
    assert sizes([3] * 5, 10) == [(3, 2), (3, 2), (3, 1)]
    assert sizes([4] * 3, 10) == [(4, 1)] * 3
    assert sizes([10_000] * 2, 200, Policy(max_attempts=100_000)) == [(10_000, 1)] * 2


def test_what_was_tried_before_keeps_nothing_new_from_going() -> None:
    assert sorted(sizes([1, 2, 1, 2, 3], 4)) == [(1, 2), (2, 2), (3, 1)]


def test_the_last_try_is_made_alone_unless_it_is_the_first_too() -> None:
    assert sizes([2] * 3, 10, replace(POLICY, max_attempts=2)) == [(2, 1)] * 3
    assert sizes([1] * 3, 10, replace(POLICY, max_attempts=1)) == [(1, 3)]


def test_an_event_that_is_delivered_again_is_in_no_request_twice() -> None:
    first, other = leased(), leased()
    again = first._replace(delivery=first.delivery._replace(id=uuid4()))
    groups = list(batches.together([first, other, again, other], Batch(max_events=10), POLICY))
    assert groups == [[first, other], [again, other]]


def test_an_item_is_what_would_be_sent_alone() -> None:
    assert written(b'{"a": "\xc3\xa9"}', {"webhook-id": FIRST, "x-order": "7"}) == {
        "headers": {"webhook-id": FIRST, "x-order": "7"},
        "body": '{"a": "é"}',
    }


@given(st.binary())
def test_every_body_can_be_had_back_from_its_item(body: bytes) -> None:
    said = written(body)
    back = base64.b64decode(str(said["body_base64"])) if "body_base64" in said else str(said["body"]).encode()
    assert back == body
    assert ("body" in said) != ("body_base64" in said)


@pytest.mark.parametrize(
    ("value", "said"), [("caf\udcc3\udca9", "café"), ("caf\udce9", "café"), ("\udcff\udcfe", "ÿþ")], ids=ascii
)
def test_a_header_that_is_no_text_is_text_in_an_item(value: str, said: str) -> None:
    assert written(b"", {"content-type": value})["headers"] == {"content-type": said}


@given(st.lists(st.integers(1, 60)), st.integers(1, 100))
def test_requests_hold_what_they_may_in_order_and_one_at_least(lengths: list[int], most: int) -> None:
    items = [Item(str(place), b"7" * length, b"") for place, length in enumerate(lengths)]
    requests = list(batches.packed(items, most))
    assert [item for request in requests for item in request] == items
    assert all(len(request) == 1 or len(batches.body(request)) <= most for request in requests)
    for before, after in pairwise(requests):
        assert len(batches.body([*before, after[0]])) > most


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"thanks",
        b'{"ok": true}',
        b"[1, 2]",
        b'["batchItemFailures"]',
        b'{"said": "batchItemFailures"}',
        b'{"batchItemFailures": []}',
        b'{"batchItemFailures": null}',
    ],
)
def test_an_answer_that_names_nothing_is_for_all(body: bytes) -> None:
    assert batches.failed(answer(body), {FIRST, SECOND}) == set()


def test_an_object_that_is_not_there_to_its_end_may_name_anything() -> None:
    for cut in (answer(b' {"ok"')._replace(whole=False), answer(b'{"ok": "' + b"x" * 16_376)._replace(size=20_000)):
        assert batches.failed(cut, {FIRST}) is None
        assert batches.failed(cut._replace(body=b"<html>"), {FIRST}) == set()


def test_an_answer_is_there_to_its_end_although_a_secret_was_taken_out_of_it() -> None:
    came = b'{"you sent": "' + b"s" * 64 + b'"}'
    assert batches.failed(redacted(answer(came), [b"s" * 64]), {FIRST}) == set()


def test_an_answer_that_is_compressed_may_name_anything() -> None:
    def coded(coding: bytes, body: bytes) -> Response:
        return answer(body)._replace(fields=((b"Content-Encoding", coding),))

    said = b'{"batchItemFailures": [{"itemIdentifier": "%s"}]}' % FIRST.encode()
    assert batches.failed(coded(b"gzip", gzip.compress(said)), {FIRST, SECOND}) is None
    assert batches.failed(coded(b"Identity", said), {FIRST, SECOND}) == {FIRST}
    assert batches.failed(coded(b"gzip", b""), {FIRST, SECOND}) == set()


def test_an_answer_may_name_what_failed() -> None:
    said = json.dumps({"batchItemFailures": [{"itemIdentifier": SECOND, "why": "x"}, {"itemIdentifier": SECOND}]})
    assert batches.failed(answer(said.encode()), {FIRST, SECOND}) == {SECOND}


@pytest.mark.parametrize(
    "body",
    [
        b'{"batchItemFailures": [{"itemIdentifier": "another"}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ""}]}',
        b'{"batchItemFailures": [{"itemIdentifier": 7}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ["a"]}]}',
        b'{"batchItemFailures": [{}]}',
        b'{"batchItemFailures": ["00000000-0000-0000-0000-000000000001"]}',
        b'{"batchItemFailures": {"itemIdentifier": "00000000-0000-0000-0000-000000000001"}}',
        b'{"batchItemFailures": [{"itemIdentifier": "00000000-0000-0000-0000-0000',
        b'{"batchItemFailures": ' + b"[" * 9000,
        b'\xff\xfe{"batchItemFailures": []}',
    ],
    ids=lambda body: ascii(body[:70]),
)
def test_an_answer_that_names_what_cannot_be_found_is_for_none(body: bytes) -> None:
    assert batches.failed(answer(body), {FIRST, SECOND}) is None

import json
import re
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier.errors import MalformedLeafError, TooLargeError, VerificationError
from kapsel_verifier.leaf import MAX_LEAF_SIZE, Leaf

hashes = st.binary(min_size=32, max_size=32)
ids = st.uuids().map(str)
numbers = st.integers(0, 2**53 - 1)


def texts(least: int = 1) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=least, max_size=253)


@st.composite
def leaves(draw: st.DrawFn) -> Leaf:
    sequence = draw(numbers)
    return Leaf(
        attempt=draw(st.integers(1, 2**53 - 1)),
        delivery_attempt_id=draw(ids),
        delivery_id=draw(ids),
        destination=draw(texts()),
        endpoint=draw(st.from_regex(re.compile(r"[a-z0-9.-]{1,40}/[a-z0-9.-]{1,40}", re.ASCII), fullmatch=True)),
        endpoint_id=draw(ids),
        endpoint_sequence=sequence,
        endpoint_url=draw(texts()),
        event_id=draw(ids),
        outcome=draw(texts()),
        payload_commitment=draw(st.none() | hashes),
        payload_hash=draw(hashes),
        previous_leaf_hash=draw(hashes) if sequence else None,
        reason=draw(texts(least=0)),
        response_digest=draw(st.none() | hashes),
        response_status=draw(st.none() | st.integers(0, 999)),
        salt=draw(hashes),
        signature_digest=draw(st.none() | hashes),
        timestamp=draw(numbers),
    )


@given(leaves())
def test_a_leaf_comes_back_as_it_was_written(leaf: Leaf) -> None:
    assert Leaf.parse(leaf.encode()) == leaf


@given(leaves())
def test_the_encoding_is_what_a_canonical_json_writer_makes(leaf: Leaf) -> None:
    members = json.loads(leaf.encode())
    assert json.dumps(members, sort_keys=True, separators=(",", ":")).encode() == leaf.encode()


@given(st.data())
def test_a_leaf_with_any_byte_changed_is_another_leaf_or_none(log: ModuleType, data: st.DataObject) -> None:
    original = log.LEAVES[5]
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != original[where]))
    mutant = original[:where] + bytes([value]) + original[where + 1 :]
    try:
        leaf = Leaf.parse(mutant)
    except MalformedLeafError:
        return
    assert leaf.encode() == mutant
    assert leaf != Leaf.parse(original)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        Leaf.parse(data)


def test_a_leaf_larger_than_an_entry_of_a_tile_is_refused() -> None:
    with pytest.raises(TooLargeError):
        Leaf.parse(b" " * (MAX_LEAF_SIZE + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 0},
        {"attempt": 2**53},
        {"timestamp": -1},
        {"endpoint_sequence": 2**53},
        {"endpoint_sequence": 0},
        {"previous_leaf_hash": None},
        {"response_status": 1000},
        {"salt": b""},
        {"payload_hash": bytes(31)},
        {"signature_digest": bytes(33)},
        {"event_id": "A" * 36},
        {"event_id": ""},
        {"endpoint": "orders"},
        {"endpoint": "a/b/c"},
        {"endpoint": "a b/c"},
        {"destination": ""},
        {"destination": "x" * 254},
        {"destination": "caf\u00e9"},
        {"endpoint_url": "https://example.com/" + "a" * 8192},
        {"endpoint_url": "https://example.com/\n"},
        {"outcome": ""},
        {"reason": "\x7f"},
    ],
    ids=str,
)
def test_a_value_outside_the_profile_is_not_encoded(log: ModuleType, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedLeafError):
        Leaf.parse(log.LEAVES[5])._replace(**change).encode()


def test_quotes_and_backslashes_in_a_text_come_back(log: ModuleType) -> None:
    leaf = Leaf.parse(log.LEAVES[5])._replace(endpoint_url='https://example.com/?q="\\')
    assert Leaf.parse(leaf.encode()) == leaf


def test_each_leaf_of_an_endpoint_names_the_one_before(log: ModuleType) -> None:
    parsed = [Leaf.parse(data) for data in log.LEAVES]
    assert parsed[0].previous_leaf_hash is None
    assert [leaf.previous_leaf_hash for leaf in parsed[1:]] == [log.leaf_hash(data) for data in log.LEAVES[:-1]]

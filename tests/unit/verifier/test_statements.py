"""Leaves in which a log speaks about itself: one spelling each, and nothing that contradicts itself."""

import json
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier.errors import MalformedLeafError, SignatureError, TooLargeError
from kapsel_verifier.leaf import Leaf, parse_any
from kapsel_verifier.statements import KeySuccession, LogContinuation, Statement, parse

SALT = sha256(b"salt of a statement").digest()


def continuation(log: ModuleType, **changes: Any) -> LogContinuation:
    made = LogContinuation(
        checkpoint=log.PROOF.checkpoint.encode(),
        origin="log.example.com/shop/2",
        reason='restored from a backup of "2026-01-02"',
        salt=SALT,
        timestamp=log.HEAD_MS + 5000,
    )
    return made._replace(**changes)


def succession(log: ModuleType, **changes: Any) -> KeySuccession:
    made = KeySuccession(
        not_before=log.HEAD_MS,
        origin=log.ORIGIN,
        predecessor=log.vkey(),
        predecessor_not_after=log.HEAD_MS + 1000,
        predecessor_signature=bytes(64),
        salt=SALT,
        successor=log.vkey("next"),
        successor_signature=bytes(64),
        timestamp=log.HEAD_MS - 1,
    )._replace(**changes)
    message = made.message()
    signed = {"predecessor_signature": log.sign()(message), "successor_signature": log.sign("next")(message)}
    return made._replace(**{**signed, **changes})


def both(log: ModuleType) -> list[Statement]:
    return [continuation(log), succession(log)]


def test_a_statement_comes_back_as_it_was_written(log: ModuleType) -> None:
    for statement in both(log):
        assert parse(statement.encode()) == statement


def test_the_encoding_is_canonical_json_with_a_salt_a_time_a_type_and_a_version(log: ModuleType) -> None:
    for statement in both(log):
        members = json.loads(statement.encode())
        assert json.dumps(members, sort_keys=True, separators=(",", ":")).encode() == statement.encode()
        assert {"salt", "timestamp", "type", "v"} <= members.keys()


def test_a_leaf_of_any_type_is_told_by_its_type(log: ModuleType) -> None:
    for data, kind in (
        (log.LEAVES[5], Leaf),
        (continuation(log).encode(), LogContinuation),
        (succession(log).encode(), KeySuccession),
    ):
        leaf = parse_any(data)
        assert type(leaf) is kind
        assert leaf.encode() == data


def test_a_text_that_looks_like_the_type_of_an_attempt_does_not_mislead(log: ModuleType) -> None:
    statement = continuation(log, reason='"type":"kapsel.delivery-attempt"')
    assert parse_any(statement.encode()) == statement


def test_a_leaf_of_an_unknown_type_is_refused(log: ModuleType) -> None:
    data = continuation(log).encode().replace(b"kapsel.log-continuation", b"kapsel.log-conclusion")
    with pytest.raises(MalformedLeafError, match="no type and version"):
        parse_any(data)


def test_a_continuation_holds_the_old_logs_head(log: ModuleType) -> None:
    old = continuation(log).predecessor()
    assert (old.origin, old.tree_size) == (log.ORIGIN, log.SIZE)


def test_a_succession_is_signed_by_both_keys_over_all_but_the_signatures(log: ModuleType) -> None:
    made = succession(log)
    made.verify()
    assert b"signature" not in made.message()
    for name in ("predecessor_signature", "successor_signature"):
        with pytest.raises(SignatureError):
            made._replace(**{name: log.sign("other")(made.message())}).verify()
    with pytest.raises(SignatureError):
        made._replace(not_before=made.not_before - 1).verify()


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": b"log.example.com/old\n13\n"},
        {"checkpoint": b""},
        {"checkpoint": b"\xff\n\n\xff"},
        {"origin": ""},
        {"origin": "a+b"},
        {"origin": "caf\u00e9"},
        {"origin": "log.example.com/shop"},
        {"reason": ""},
        {"reason": "x" * 1025},
        {"reason": "two\nlines"},
        {"salt": bytes(31)},
        {"timestamp": -1},
        {"timestamp": 2**53},
    ],
    ids=str,
)
def test_a_continuation_outside_the_profile_is_not_encoded(log: ModuleType, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedLeafError):
        continuation(log, **change).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "elsewhere"},
        {"not_before": -1},
        {"not_before": 2**53, "predecessor_not_after": 2**53},
        {"predecessor_not_after": 1},
        {"predecessor_signature": bytes(63)},
        {"successor_signature": bytes(65)},
        {"salt": b""},
        {"timestamp": 2**53},
    ],
    ids=str,
)
def test_a_succession_outside_the_profile_is_not_encoded(log: ModuleType, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedLeafError):
        succession(log, **change).encode()


def test_a_key_neither_succeeds_itself_nor_one_of_another_log(log: ModuleType) -> None:
    for change in ({"successor": log.vkey()}, {"predecessor": log.vkey(origin="other")}):
        with pytest.raises(MalformedLeafError):
            succession(log, **change).encode()


def test_a_statement_larger_than_an_entry_of_a_tile_is_refused(log: ModuleType) -> None:
    line = log.signature_line("witness.example.org", b"\1\2\3\4", bytes(3000))
    with pytest.raises(TooLargeError):
        continuation(log, checkpoint=(log.PROOF.checkpoint + line * 20).encode()).encode()
    with pytest.raises(TooLargeError):
        parse(b" " * 65_536)


@given(st.data())
def test_a_statement_with_any_byte_changed_is_another_or_none(log: ModuleType, data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(both(log))).encode()
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != original[where]))
    mutant = original[:where] + bytes([value]) + original[where + 1 :]
    try:
        statement = parse_any(mutant)
    except MalformedLeafError:
        return
    assert statement.encode() == mutant

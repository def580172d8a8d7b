import base64
import json
from itertools import pairwise
from time import process_time
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier import statements
from kapsel_verifier.errors import (
    MalformedKeyError,
    MalformedLeafError,
    SignatureError,
    TooLargeError,
    VerificationError,
)
from kapsel_verifier.keys import (
    MAX_KEY_SET_SIZE,
    TrustedKey,
    encode_jwks,
    encode_key_set,
    follow,
    parse_key,
    parse_key_set,
)
from kapsel_verifier.statements import KeySuccession

times = st.none() | st.integers(0, 2**53 - 1)


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), times, times), min_size=1, max_size=4))
def test_a_key_set_comes_back_as_it_was_written(entries: list[tuple[bytes, int | None, int | None]]) -> None:
    keys = tuple(TrustedKey(public_key=k, name="log", not_before_ms=b, not_after_ms=a) for k, b, a in entries)
    assert parse_key_set(encode_key_set(keys)) == keys


def test_a_key_set_may_be_lines_of_vkeys_with_comments(log: ModuleType) -> None:
    lines = f"# the shop's log\r\n{log.vkey().encode()}\r\n\n  {log.vkey('next').encode()}  \n"
    assert parse_key_set(lines.encode()) == tuple(
        TrustedKey(public_key=log.vkey(seed).public_key, name=log.ORIGIN) for seed in ("log", "next")
    )


def test_validity_may_be_left_out_of_a_key_set(log: ModuleType) -> None:
    (key,) = parse_key_set(b'{"keys":[{"vkey":"%s"}]}' % log.vkey().encode().encode())
    assert key.is_valid_at(0)
    assert key.is_valid_at(2**53 - 1)


def test_a_bare_key_is_read_in_either_case_of_hex(log: ModuleType) -> None:
    public_key = log.vkey().public_key
    assert parse_key(public_key.hex()) == parse_key(public_key.hex().upper()) == TrustedKey(public_key=public_key)


def test_a_bare_key_cannot_be_published(log: ModuleType) -> None:
    with pytest.raises(MalformedKeyError):
        encode_key_set([TrustedKey(public_key=log.vkey().public_key)])


def test_a_key_set_beyond_its_limit_or_not_utf_8_is_refused() -> None:
    with pytest.raises(TooLargeError):
        parse_key_set(b"#" * (MAX_KEY_SET_SIZE + 1))
    with pytest.raises(MalformedKeyError):
        parse_key_set(b"\xff")


@given(st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_no_key_set(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse_key_set(data)


def succession(log: ModuleType, old: str, new: str, **changed: int) -> bytes:
    """Return the leaf in which a key of the log announces another."""
    fields = {"not_before": 2000, "predecessor_not_after": 3000, "timestamp": 1000} | changed
    unsigned = KeySuccession(
        origin=log.ORIGIN,
        predecessor=log.vkey(old),
        successor=log.vkey(new),
        predecessor_signature=b"",
        successor_signature=b"",
        salt=bytes(32),
        **fields,
    )
    message = unsigned.message()
    signatures = {
        "predecessor_signature": log.signer(old).sign(message).signature,
        "successor_signature": log.signer(new).sign(message).signature,
    }
    return unsigned._replace(**signatures).encode()


def offered(log: ModuleType, new: str, leaf: bytes | None) -> TrustedKey:
    return TrustedKey(log.vkey(new).public_key, log.ORIGIN, not_before_ms=0, succession=leaf)


def pinned(log: ModuleType, name: str | None = None) -> TrustedKey:
    return TrustedKey(log.vkey().public_key, name)


def test_who_holds_the_first_key_follows_to_the_last_in_whatever_order_they_come(log: ModuleType) -> None:
    links = [
        offered(
            log,
            "third",
            succession(log, "second", "third", not_before=4000, predecessor_not_after=5000, timestamp=2500),
        ),
        offered(log, "log", None),
        offered(log, "second", succession(log, "log", "second")),
    ]
    for trusted in (pinned(log), pinned(log, log.ORIGIN)):
        first, second, third = follow([trusted], links)
        assert first == trusted._replace(not_after_ms=3000)
        assert second == links[2]._replace(not_before_ms=2000, not_after_ms=5000)
        assert third == links[0]._replace(not_before_ms=4000)
    assert parse_key_set(encode_key_set(links)) == tuple(links)


def test_a_long_chain_is_followed_in_a_moment_though_it_comes_backwards(log: ModuleType) -> None:
    names = ["log", *(f"key {number}" for number in range(600))]
    links = [
        offered(
            log, new, succession(log, old, new, not_before=number, predecessor_not_after=2**53 - 1, timestamp=number)
        )
        for number, (old, new) in enumerate(pairwise(names))
    ]
    begun = process_time()
    found = follow([pinned(log)], reversed(links))
    assert process_time() - begun < 40  # seconds: it takes a fraction of one, and minutes where all are tried on all
    assert [key.public_key for key in found] == [log.vkey(name).public_key for name in names]


def test_an_end_that_was_not_decided_leaves_the_predecessor_as_it_is(log: ModuleType) -> None:
    leaf = succession(log, "log", "second", predecessor_not_after=2**53 - 1)
    assert follow([pinned(log)], [offered(log, "second", leaf)])[0] == pinned(log)


def test_a_key_that_nobody_trusted_announced_is_not_followed(log: ModuleType) -> None:
    links = [offered(log, "second", None), offered(log, "thief", succession(log, "second", "thief"))]
    assert follow([pinned(log)], links) == (pinned(log),)
    other = TrustedKey(log.vkey().public_key, "log.example.com/another")
    assert follow([other], [offered(log, "second", succession(log, "log", "second"))]) == (other,)


def test_a_key_announces_nothing_outside_its_time(log: ModuleType) -> None:
    ended = pinned(log)._replace(not_after_ms=999)
    assert follow([ended], [offered(log, "second", succession(log, "log", "second"))]) == (ended,)


def test_only_what_the_statement_says_is_taken_from_what_is_offered(log: ModuleType) -> None:
    leaf = succession(log, "log", "second")
    stranger = TrustedKey(log.vkey("thief").public_key, log.ORIGIN, succession=leaf)
    found = follow([pinned(log)], [stranger])
    assert [key.public_key for key in found] == [log.vkey().public_key, log.vkey("second").public_key]


def test_a_link_that_does_not_hold_is_refused_whatever_it_links_to(log: ModuleType) -> None:
    leaf = succession(log, "log", "second")
    statement = statements.parse(leaf)
    forged = statement._replace(predecessor_signature=bytes(64)).encode()
    with pytest.raises(SignatureError):
        follow([pinned(log)], [offered(log, "second", forged)])
    with pytest.raises(SignatureError):
        follow([pinned(log)], [offered(log, "second", statement._replace(not_before=1).encode())])
    with pytest.raises(MalformedLeafError):
        follow([pinned(log)], [offered(log, "second", leaf[:-1])])


def test_a_web_key_set_names_each_key_by_its_id_and_its_time_in_seconds(log: ModuleType) -> None:
    keys = [
        TrustedKey(log.vkey().public_key, log.ORIGIN, not_before_ms=1999, not_after_ms=3001),
        TrustedKey(log.vkey("second").public_key, log.ORIGIN),
    ]
    first, second = json.loads(encode_jwks(keys))["keys"]
    assert first == {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": log.vkey().key_id.hex(),
        "x": base64.urlsafe_b64encode(log.vkey().public_key).decode().rstrip("="),
        "origin": log.ORIGIN,
        "nbf": 1,
        "exp": 4,
    }
    assert second.keys() == first.keys() - {"nbf", "exp"}
    with pytest.raises(MalformedKeyError):
        encode_jwks([TrustedKey(public_key=log.vkey().public_key)])

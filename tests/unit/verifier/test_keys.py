from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier.errors import MalformedKeyError, TooLargeError, VerificationError
from kapsel_verifier.keys import MAX_KEY_SET_SIZE, TrustedKey, encode_key_set, parse_key, parse_key_set

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

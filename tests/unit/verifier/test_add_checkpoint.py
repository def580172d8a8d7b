import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_verifier.add_checkpoint import MAX_REQUEST_SIZE, AddCheckpoint, parse_size
from kapsel_verifier.errors import MalformedNoteError, TooLargeError, VerificationError

# The example of C2SP tlog-witness.
LINE = "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8="
EXAMPLE = f"""old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa {LINE}
"""


def test_the_example_of_the_specification_is_read_and_written() -> None:
    read = AddCheckpoint.parse(EXAMPLE.encode())
    assert (read.old_size, len(read.proof)) == (20852014, 4)
    assert read.checkpoint.startswith("example.com/behind-the-sofa\n")
    assert read.encode() == EXAMPLE.encode()


@settings(deadline=None)
@given(st.integers(0, 2**53 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_request_comes_back_as_it_was_written(old: int, proof: list[bytes]) -> None:
    made = AddCheckpoint(old, tuple(proof), "origin\n5\nroot\n\nsignature\n")
    assert AddCheckpoint.parse(made.encode()) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 5",
        "old 5\n",
        "old 5\n\n"[:-1] + "x",
        "old 05\n\nnote\n",
        "old -1\n\nnote\n",
        "old  5\n\nnote\n",
        "Old 5\n\nnote\n",
        "old 5\r\n\nnote\n",
        "old 99999999999999999999\n\nnote\n",
        "size 5\n\nnote\n",
        "old 5\nAAAA\n\nnote\n",
        "old 5\n" + "A" * 43 + "\n\nnote\n",
        "old 5\n" + "A" * 42 + "B=\n\nnote\n",
        "old 5\n" + ("A" * 43 + "=\n") * 64 + "\nnote\n",
    ],
)
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(MalformedNoteError):
        AddCheckpoint.parse(text.encode())


def test_bytes_that_are_no_text_and_too_many_of_them_are_refused() -> None:
    with pytest.raises(MalformedNoteError):
        AddCheckpoint.parse(b"old 5\n\n\xff")
    with pytest.raises(TooLargeError):
        AddCheckpoint.parse(b"o" * (MAX_REQUEST_SIZE + 1))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_whatever_comes_nothing_else_is_raised(data: bytes) -> None:
    for body in (data, b"old 5\n" + data):
        try:
            read = AddCheckpoint.parse(body)
        except VerificationError:
            continue
        assert read.encode() == body


def test_the_size_that_a_witness_tells_has_one_spelling() -> None:
    assert parse_size("0\n") == 0
    assert parse_size("20852163\n") == 20852163
    for text in ("", "5", "05\n", "5\n\n", " 5\n", "-5\n", "5\r\n", "x\n"):
        with pytest.raises(MalformedNoteError):
            parse_size(text)

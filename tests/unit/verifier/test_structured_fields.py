from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier.errors import AcknowledgementError
from kapsel_verifier.structured_fields import Bare, InnerList, Item, Token, dictionary, encode, inner_list

keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
bares: st.SearchStrategy[Bare] = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    st.binary(max_size=70),
    st.booleans(),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,8}", fullmatch=True).map(Token),
)
parameters = st.dictionaries(keys, bares, max_size=4)
items = st.builds(Item, bares, parameters)
lists = st.builds(InnerList, st.lists(items, max_size=4).map(tuple), parameters)


def read(text: str) -> object:
    return dictionary(text, "the field", AcknowledgementError)


@given(lists)
def test_an_inner_list_comes_back_as_it_was_written(value: InnerList) -> None:
    found = inner_list(encode(value), "the list", AcknowledgementError)
    assert found == value
    assert encode(found) == encode(value)


@given(st.dictionaries(keys, items | lists, min_size=1, max_size=4), st.sampled_from([",", ", ", "\t,\t ", " , "]))
def test_a_dictionary_is_read_with_any_white_space_that_is_allowed(
    value: dict[str, Item | InnerList], comma: str
) -> None:
    assert read(f"  {comma.join(f'{key}={encode(member)}' for key, member in value.items())}  ") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("a", {"a": Item(True, {})}),
        ("a;b;c=1", {"a": Item(True, {"b": True, "c": 1})}),
        ('a="x \\"y\\" \\\\z"', {"a": Item('x "y" \\z', {})}),
        ("a=(  1   2 );q", {"a": InnerList((Item(1, {}), Item(2, {})), {"q": True})}),
        ("a=()", {"a": InnerList((), {})}),
        ("a=?0, b=-7", {"a": Item(False, {}), "b": Item(-7, {})}),
        ("sha-256=:AA==:", {"sha-256": Item(b"\0", {})}),
        ("a;  b=1", {"a": Item(True, {"b": 1})}),
    ],
)
def test_values_are_read_as_the_rfc_says(text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "a=1,", ",", "a b", "A=1", "a=", "a=1;", "a=1;=2", 'a="x', 'a="\x1f"', 'a="é"', 'a="\\x"', "a=:AA:", "a=:AB==:",
        "a=:A A=:", "a=1.5", "a=1234567890123456", "a=(1", "a=(1,2)", "a=(1 2", 'a=("x""y")', "a=?2", "a=@1", 'a=%"x"',
        "a=--1", "a=1 ;b=2", "a=1, a=2", "a;b=1;b=2", "a =1", "a= 1", "a=\n1", "a=1\x00", "a=\u0661",
        "a=" + "1;b" * 4000,
    ],
)  # fmt: skip
def test_what_is_malformed_doubled_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(AcknowledgementError):
        read(text)


@given(st.text(st.characters(max_codepoint=0x17F), max_size=60) | st.text(list('ab=(") ;,:?1*\\\t'), max_size=40))
def test_no_text_makes_another_kind_of_error(text: str) -> None:
    for reader in (dictionary, inner_list):
        with suppress(AcknowledgementError):
            reader(text, "the field", AcknowledgementError)

"""The options of kapsel-verify are read in two ways that agree: quickly where they are in order, and by argparse."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_verifier import options
from kapsel_verifier.given import UsageError

NAMES = [name for name, *_ in options._OPTIONS]
words = st.sampled_from(
    [*NAMES, "proof.json", "-", "--", "-1", "5", "05", "٥", "1" * 30, "", "witnessed", "trusted", "a=b", "--prof", "-p"]
)
together = st.builds(lambda name, value: f"{name}={value}", st.sampled_from(NAMES), words)


@settings(max_examples=600, deadline=None)
@given(st.lists(words | together, max_size=8))
def test_what_is_read_quickly_is_what_argparse_reads(arguments: list[str]) -> None:
    arguments = ["--proof", "p", *arguments]
    quick = options._read(arguments)
    if quick is None:
        return
    assert options.parser().parse_args(arguments, SimpleNamespace()) == quick


@pytest.mark.parametrize(
    "arguments",
    [
        ["--proof", "p", "--public-key", "k"],
        ["--proof=p", "--public-key=a+b+c==", "--json"],
        ["--proof", "-", "--keys", "k", "--expect", "outcome=delivered", "--expect", "attempt=1", "--explain"],
        ["--proof", "p", "--policy", "q", "--max-age", "60", "--clock-skew=0", "--require", "witnessed"],
    ],
    ids=str,
)
def test_options_in_order_need_no_argparse(arguments: list[str]) -> None:
    quick = options._read(arguments)
    assert quick is not None
    assert options.parser().parse_args(arguments, SimpleNamespace()) == quick


@pytest.mark.parametrize("arguments", [[], ["--proof"], ["--proof", "p", "q"], ["--proof", "p", "--max-age", "old"]])
def test_whatever_is_not_in_order_is_explained(arguments: list[str]) -> None:
    assert options._read(arguments) is None
    with pytest.raises(UsageError, match="see kapsel-verify --help"):
        options.read(arguments)

"""What is decided about witnesses: how often they are asked, and what is said of a head."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kapsel_attestor.witness_client import Cosigned, Failed, Head, Witness
from kapsel_attestor.witnesses import BURST, OVER_BUDGET, TRIPPED, Asked, Budget, condition, text_of
from kapsel_store import rows
from kapsel_verifier.cosignature import WitnessKey, cosign, find
from kapsel_verifier.merkle import leaf_hash
from kapsel_verifier.note import Checkpoint, Note, VerifierKey

SECRET = SigningKey(bytes(32))
KEY = WitnessKey("witness.example/w", bytes(SECRET.verify_key))
DECLARED = rows.Witness(name="w", vkey=KEY.encode(), url="https://witness.example")
FAILED = Failed(why="refused", words="it answers 500")


def head(size: int = 1) -> Head:
    text = Checkpoint("log.example", size, leaf_hash(b"")).text()
    return Head.of(f"{text}\n{VerifierKey('log.example', bytes(32)).line(bytes(64))}")


def cosigned(text: str, timestamp: int = 5) -> str:
    return cosign(text, timestamp, KEY, lambda message: SECRET.sign(message).signature)


def test_a_cosignature_over_the_head_is_taken_with_its_line() -> None:
    line = cosigned(Note.parse(head().checkpoint).text)
    answer = Witness("https://witness.example", KEY)._checked(head(), line.encode())
    assert answer == Cosigned(line=line, timestamp=5)
    assert find(Note.parse(head().checkpoint + line), [KEY])


@pytest.mark.parametrize("before", ["\n", "— other.example AAAAAAA=\n\n", "text\n\n"])
def test_a_cosignature_over_anything_but_the_head_is_none(before: str) -> None:
    """An answer with a blank line would have the note end elsewhere, and its own lines be part of what is signed."""
    line = cosigned((head().checkpoint + before).removesuffix("\n"))
    answer = Witness("https://witness.example", KEY)._checked(head(), (before + line).encode())
    assert isinstance(answer, Failed)
    assert answer.why == "invalid"


@pytest.mark.parametrize(("timestamp", "is_taken"), [(253_402_300_799, True), (1_767_225_700_000, False)])
def test_a_cosignature_dated_beyond_the_year_9999_is_none(timestamp: int, is_taken: bool) -> None:
    """A witness that dates in milliseconds: whoever reads the head could not tell its date."""
    line = cosigned(Note.parse(head().checkpoint).text, timestamp)
    answer = Witness("https://witness.example", KEY)._checked(head(), line.encode())
    assert isinstance(answer, Cosigned) == is_taken


@settings(deadline=None)
@given(st.lists(st.floats(0, 100_000), max_size=300), st.integers(24, 86_400))
def test_a_budget_is_kept_over_any_time_and_may_be_ahead_by_no_more_than_its_burst(
    gaps: list[float], per_day: int
) -> None:
    budget, now, taken = Budget(per_day, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        taken += budget.take(now)
        assert taken <= BURST + now * per_day / 86_400 + 1e-6


def test_a_budget_lets_through_what_comes_at_its_rate() -> None:
    budget = Budget(8640, 0.0)
    assert all(budget.take(second * 10.0) for second in range(10_000))


def test_a_witness_over_its_budget_is_represented_by_what_it_said_of_the_same_head() -> None:
    one = Asked(DECLARED, 24, 0.0)
    for _ in range(BURST):
        assert one.over_budget("text", 0.0) is None
    assert one.over_budget("text", 0.0) == OVER_BUDGET
    said = Cosigned(line="line\n", timestamp=5)
    one._note(said, head())
    assert one.over_budget(text_of(head().checkpoint), 0.0) is said
    assert isinstance(one.over_budget(text_of(head(2).checkpoint), 0.0), str)
    assert one.over_budget("text", 3600.0) is None


def test_a_witness_that_keeps_failing_is_left_out_and_one_that_answers_is_not() -> None:
    one = Asked(DECLARED, 86_400, 0.0)
    for _ in range(TRIPPED - 1):
        one._note(FAILED, head())
    assert one.left_out(0.0) is None
    one._note(Cosigned(line="line\n", timestamp=5), head())
    for _ in range(TRIPPED):
        assert one.left_out(0.0) is None
        one._note(FAILED, head())
    assert one.left_out(0.0) == "it answers 500"
    one._note(Cosigned(line="line\n", timestamp=5), head())
    assert one.left_out(0.0) is None


def test_the_condition_says_who_cosigned_and_who_did_not() -> None:
    free = rows.Witnessing(witnesses=(DECLARED,), quorum=2)
    met = condition(["a", "b"], {"c": "it answers 500"}, free)
    assert (met.status, met.reason) == ("True", "Quorum")
    assert met.message == "cosigned by a, b; not by c: it answers 500"
    unmet = condition(["a"], {"b": "it answers 500", "c": "it answers 403"}, free)
    assert (unmet.status, unmet.reason) == ("False", "NoQuorum")
    assert "heads are published without a quorum" in unmet.message
    assert "b: it answers 500; c: it answers 403" in unmet.message
    withheld = condition([], {"b": "x"}, rows.Witnessing(witnesses=(DECLARED,), quorum=1, required=True))
    assert "heads are withheld" in withheld.message

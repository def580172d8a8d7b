"""What is asked about an anchored head, what answers make of it, and when it is asked again."""

from datetime import timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_attestor import dating
from kapsel_attestor.dating import Progress, Question
from kapsel_store.anchors import DueAnchor, Newest, Pending
from kapsel_store.rows import Anchoring
from kapsel_verifier import ots, ots_paths
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.ots import Timestamp
from kapsel_verifier.ots_paths import APPEND, HEXLIFY, PREPEND, SHA256, Path, Step

URLS = tuple(f"https://{name}.example.com" for name in ("a", "b", "c"))
A, B, C = URLS
DECLARED = Anchoring(calendars=URLS, minimum=2)
CHECKPOINT = "log.example.com\n1\nroot\n\n— log.example.com c2lnbmF0dXJl\n"
NONCE = bytes(range(16))
NONE_PENDING = Pending(count=0, oldest=None)


def due(timestamp: Timestamp | None = None, **fields: object) -> DueAnchor:
    return DueAnchor(
        log_id=1,
        timestamp_ms=1,
        tree_size=1,
        checkpoint=CHECKPOINT,
        nonce=NONCE,
        ots=None if timestamp is None else timestamp.encode(),
        height=None,
        age=timedelta(0),
        tries=0,
        **fields,
    )


def asked(timestamp: Timestamp, declared: Anchoring = DECLARED) -> list[Question]:
    return dating.questions(due(), timestamp, declared)


def promise_of(url: str) -> tuple[Path, ...]:
    """Return what a calendar answers to a digest: a number before it, a seal behind it."""
    return (Path((Step(PREPEND, url.encode()), Step(APPEND, b"seal")), ots_paths.pending(url)),)


def block(height: int) -> tuple[Path, ...]:
    """Return what a calendar answers when it has kept its promise."""
    return (Path((Step(APPEND, bytes([height % 256])), Step(SHA256)), ots_paths.bitcoin(height)),)


def promised(*urls: str) -> Timestamp:
    timestamp = dating.begun(due())
    for url in urls:
        (question,) = [one for one in asked(timestamp, Anchoring(calendars=(url,), minimum=1)) if not one.promised]
        timestamp = dating.absorb(timestamp, question, promise_of(url))
    return timestamp


def kept(timestamp: Timestamp, url: str, height: int) -> Timestamp:
    (question,) = [one for one in asked(timestamp) if one.calendar == url and one.promised]
    return dating.absorb(timestamp, question, block(height))


def newest(timestamp: Timestamp | None, tries: int = 5, height: int | None = None) -> Newest:
    data = None if timestamp is None else timestamp.encode()
    return Newest(timestamp_ms=1, tree_size=7, ots=data, height=height, tries=tries)


def test_at_first_every_calendar_is_asked_to_date_the_same_salted_hash() -> None:
    questions = asked(dating.begun(due()))
    digest = sha256(CHECKPOINT.encode()).digest()
    assert [question.calendar for question in questions] == list(URLS)
    assert {question.message for question in questions} == {sha256(digest + NONCE).digest()}
    assert {ots_paths.follow(digest, question.steps) for question in questions} == {questions[0].message}


def test_who_has_promised_is_asked_what_has_become_of_it_and_the_others_while_too_few_have() -> None:
    one = asked(promised(A))
    assert [(question.calendar, question.promised) for question in one] == [(B, False), (C, False), (A, True)]
    two = asked(promised(A, C))
    assert [(question.calendar, question.promised) for question in two] == [(A, True), (C, True)]
    assert two[0].message == A.encode() + sha256(sha256(CHECKPOINT.encode()).digest() + NONCE).digest() + b"seal"


def test_who_has_kept_a_promise_is_not_asked_again() -> None:
    timestamp = kept(promised(A, B), A, 900_000)
    assert [question.calendar for question in asked(timestamp)] == [B]
    known = dating.progress(timestamp, URLS)
    assert known == Progress(promised=frozenset({A, B}), fulfilled=frozenset({A}), height=900_000)
    assert dating.progress(kept(timestamp, B, 899_999), URLS).height == 899_999


def test_a_calendar_that_is_named_no_more_is_not_asked_and_what_it_said_stays() -> None:
    timestamp = promised(A, B)
    fewer = Anchoring(calendars=(B, C), minimum=2)
    assert [(question.calendar, question.promised) for question in asked(timestamp, fewer)] == [(C, False), (B, True)]
    assert len(timestamp.promises()) == 2


def test_what_was_stored_is_taken_up_as_it_was() -> None:
    timestamp = kept(promised(A, B), B, 1)
    assert dating.begun(due(timestamp)) == timestamp


def test_an_answer_must_promise_by_a_calendar_that_is_asked_or_lead_to_a_block() -> None:
    new, old = Question(A, bytes(32), (), False), Question(A, bytes(44), (), True)
    assert dating.unfit(new, promise_of(A), URLS) is None
    assert dating.unfit(new, promise_of(f"{A}/"), URLS) is None, "a slash more names the same server"
    assert dating.unfit(old, block(1), URLS) is None
    assert dating.unfit(new, promise_of("https://d.example.com"), URLS) == (
        "answers for https://d.example.com, which is not among the calendars: name that one instead"
    )
    assert dating.unfit(new, (Path((), ots_paths.Attestation(bytes(8), b"")),), URLS) is not None
    assert dating.unfit(old, promise_of(A), URLS) == "answers with a timestamp that leads to no block"
    unrooted = (Path((Step(HEXLIFY),), ots_paths.bitcoin(1)),)
    assert dating.unfit(old, unrooted, URLS) is not None, "a Merkle root has 32 bytes"


def test_an_answer_that_would_leave_no_room_for_others_is_refused() -> None:
    timestamp = promised(A)
    (new,) = [one for one in asked(timestamp) if one.calendar == B]
    (old,) = [one for one in asked(timestamp) if one.calendar == A]
    blocks = [path for height in range(dating.MOST_PATHS + 1) for path in block(height)]
    assert dating.unfit(old, blocks[:-1], URLS) is None
    for question, paths in ((old, blocks), (new, [*promise_of(B), *blocks[:-1]])):
        assert "ways to date it" in (dating.unfit(question, paths, URLS) or "")


def test_an_answer_that_would_break_the_file_is_refused_and_the_file_stays() -> None:
    timestamp = promised(A)
    (question, *_) = asked(timestamp)
    with pytest.raises(VerificationError):
        dating.absorb(timestamp, question, [Path((Step(SHA256),) * 255, ots_paths.bitcoin(1))])
    many = [Path((Step(APPEND, bytes([i, j])),), ots_paths.bitcoin(1)) for i in range(2) for j in range(200)]
    with pytest.raises(VerificationError):
        dating.absorb(timestamp, question, many)


@given(st.lists(st.tuples(st.sampled_from(URLS), st.integers(0, 3)), max_size=12))
def test_answers_in_whatever_order_only_ever_add(events: list[tuple[str, int]]) -> None:
    timestamp = dating.begun(due())
    for url, height in events:
        before = timestamp
        for question in asked(timestamp):
            if question.calendar == url:
                timestamp = dating.absorb(timestamp, question, block(height) if question.promised else promise_of(url))
        assert set(before.paths) <= set(timestamp.paths)
        assert len(before.paths) == 0 or len(timestamp.encode()) >= len(before.encode())
        assert timestamp.paths == () or ots.parse(timestamp.encode()) == timestamp


def test_nothing_more_is_asked_when_enough_calendars_have_led_to_a_block_or_time_is_up() -> None:
    one, two = kept(promised(A, B), A, 1), kept(kept(promised(A, B), A, 1), B, 1)
    soon, late = timedelta(hours=5), dating.PATIENCE + timedelta(seconds=1)
    assert [dating.is_complete(dating.progress(each, URLS), DECLARED, soon) for each in (one, two)] == [False, True]
    assert dating.is_complete(dating.progress(one, URLS), DECLARED, late)
    assert not dating.is_complete(dating.progress(promised(A, B), URLS), DECLARED, late), "without a block it goes on"


def test_calendars_that_are_missing_are_asked_soon_and_blocks_are_waited_for_patiently() -> None:
    none, both = dating.progress(promised(), URLS), dating.progress(promised(A, B), URLS)
    seconds = [dating.rest(none, DECLARED, timedelta(0), tries).total_seconds() for tries in (0, 1, 4, 5, 500)]
    assert seconds == [30, 60, 480, 900, 900]
    hours = [dating.rest(both, DECLARED, timedelta(hours=age), 1) / timedelta(hours=1) for age in (0, 1, 4, 12, 1000)]
    assert hours == pytest.approx([1 / 6, 0.5, 2, 6, 6])
    often = Anchoring(calendars=URLS, minimum=2, interval=timedelta(minutes=1))
    assert dating.rest(both, often, timedelta(0), 1) == timedelta(seconds=10)


def test_the_condition_says_what_is_the_matter() -> None:
    def said(one: Newest | None, confirmed: Newest | None = None, hours: float | None = None) -> tuple[str, str, str]:
        pending = NONE_PENDING if hours is None else Pending(count=1, oldest=timedelta(hours=hours))
        told = dating.condition(DECLARED, one, confirmed, pending, ["b is away", "a is away"])
        assert told.type == "Anchored"
        return told.status, told.reason, told.message

    assert said(None)[:2] == ("Unknown", "NoHead")
    assert said(newest(None, tries=1), hours=0)[:2] == ("False", "Promised"), "the first tries may fail"
    assert said(newest(None), hours=0) == (
        "False",
        "CalendarsAway",
        "0 of the 2 calendars that are needed have promised to date the newest head: a is away; b is away",
    )
    assert said(newest(promised(A)), hours=0)[2].startswith("1 of the 2")
    assert said(newest(promised(A, B)), hours=5)[:2] == ("False", "Promised")
    dated = newest(kept(promised(A, B), A, 900_000), height=900_000)
    assert said(newest(promised(A, B)), dated, hours=25)[:2] == ("False", "Late")
    assert said(newest(promised(A, B)), dated, hours=5) == (
        "True", "Dated", "calendars say that block 900000 of Bitcoin dates the head of 7 leaves",
    )  # fmt: skip

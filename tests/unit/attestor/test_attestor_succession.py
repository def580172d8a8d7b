"""Which keys sign a log, which is announced, and which has ended."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.seeds import SeedBackend
from kapsel_attestor.signers.signer import Signer
from kapsel_attestor.succession import decide
from kapsel_store.log_keys import LogKey
from kapsel_store.rows import LogRow
from kapsel_verifier.note import VerifierKey

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
ROW = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="generated/k")


def signer(number: int, **times: datetime) -> Signer:
    backend = SeedBackend(bytes([number]) * 32)
    return Signer(
        key=VerifierKey(ROW.origin, backend.public_key()),
        key_id=UUID(int=number),
        where=f"version {number}",
        not_before=times.get("not_before", NOW - timedelta(days=1)),
        not_after=times.get("not_after"),
        backend=backend,
        gate=Gate(),
    )


def known(one: Signer, number: int, **changed: int | None) -> LogKey:
    key = LogKey(number=number, public_key=one.key.public_key, not_before_ms=NOW_MS - 86_400_000)
    return replace(key, **changed)


OLD, NEW, NEXT = signer(1), signer(2), signer(3, not_before=NOW + timedelta(days=30))


def test_the_first_head_is_signed_by_the_oldest_live_version_alone() -> None:
    roll = decide(ROW, [], [OLD, NEW, NEXT], NOW)
    assert (roll.signing, roll.announce, roll.ended) == ((OLD,), None, ())


def test_a_key_that_the_log_does_not_know_is_announced_and_does_not_sign() -> None:
    roll = decide(ROW, [known(OLD, 1)], [OLD, NEW], NOW)
    assert (roll.signing, roll.announce, roll.ended) == ((OLD,), (OLD, NEW), ())


def test_a_key_is_announced_before_it_is_live() -> None:
    roll = decide(ROW, [known(OLD, 1)], [OLD, NEXT], NOW)
    assert (roll.signing, roll.announce) == ((OLD,), (OLD, NEXT))


def test_an_announced_key_signs_from_the_date_that_was_announced() -> None:
    history = [known(OLD, 1), known(NEW, 2, announced_in=7, not_before_ms=NOW_MS)]
    assert decide(ROW, history, [OLD, NEW], NOW).signing == (OLD, NEW)
    assert decide(ROW, history, [OLD, NEW], NOW - timedelta(milliseconds=1)).signing == (OLD,)
    late = replace(NEW, not_before=NOW + timedelta(days=9))  # the period was made longer after the announcement
    assert decide(ROW, history, [OLD, late], NOW).signing == (OLD, late)


def test_a_clock_that_went_back_takes_no_key_away() -> None:
    history = [known(OLD, 1, not_before_ms=NOW_MS + 5000)]
    assert decide(ROW, history, [OLD], NOW, last_ms=NOW_MS + 5000).signing == (OLD,)


def test_a_key_that_left_the_configuration_or_is_over_has_ended() -> None:
    history = [known(OLD, 1), known(NEW, 2, announced_in=7)]
    assert decide(ROW, history, [NEW], NOW).ended == (history[0],)
    over = replace(OLD, not_after=NOW)
    roll = decide(ROW, history, [over, NEW], NOW)
    assert (roll.signing, roll.ended) == ((NEW,), (history[0],))


def test_nothing_is_signed_by_a_key_that_nobody_announced() -> None:
    with pytest.raises(SigningError, match=r"no key of the log .* no successor was announced") as caught:
        decide(ROW, [known(OLD, 1)], [NEW], NOW)
    assert OLD.key.key_id.hex() in str(caught.value)


def test_a_key_that_has_ended_never_signs_again() -> None:
    history = [known(OLD, 1, not_after_ms=NOW_MS), known(NEW, 2, announced_in=7)]
    roll = decide(ROW, history, [OLD, NEW], NOW)
    assert (roll.signing, roll.ended) == ((NEW,), ())
    words = r"version 1 signed .* until 2026-06-01T00:00:00\+00:00 and has ended"
    (trouble,) = roll.troubles
    with pytest.raises(SigningError, match=words):
        raise trouble
    with pytest.raises(SigningError, match=words):
        decide(ROW, history, [OLD], NOW)


def test_without_a_live_version_nothing_is_signed() -> None:
    with pytest.raises(SigningError, match="SigningKey shop/generated/k needs a live version"):
        decide(ROW, [known(OLD, 1)], [NEXT], NOW)


def test_a_new_key_that_cannot_be_looked_at_keeps_nobody_from_signing() -> None:
    trouble = SignerAwayError("Vault does not answer")
    roll = decide(ROW, [known(OLD, 1)], [OLD], NOW, troubles=(trouble,))
    assert (roll.signing, roll.announce, roll.troubles) == ((OLD,), None, (trouble,))

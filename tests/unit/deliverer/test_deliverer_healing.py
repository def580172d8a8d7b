"""Gap healing decides from GitHub's list alone: what is missing, what is due, and what GitHub's refusals mean."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from multidict import CIMultiDict

from kapsel_deliverer.github import SECONDARY, Sent, Trouble, refused
from kapsel_deliverer.healing import KEPT, SETTLED, WAITS, Failed, failed, key, looks_back, report
from kapsel_receiver import idempotency
from kapsel_store.rows import EndpointRow, Idempotency, Verification

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def sent(guid: str, code: int, minutes: float = 60, number: int = 1) -> Sent:
    return Sent(id=number, guid=guid, delivered_at=NOW - timedelta(minutes=minutes), status_code=code)


def guids(*attempts: Sent) -> list[str]:
    return [one.newest.guid for one in failed(attempts, NOW)]


def test_an_event_is_missing_if_no_attempt_of_it_succeeded() -> None:
    assert guids(sent("a", 503), sent("b", 202), sent("c", 0)) == ["a", "c"]
    assert guids(sent("a", 503, 60), sent("a", 202, 30)) == []
    assert guids(sent("a", 200, 60), sent("a", 500, 30)) == []
    assert guids(sent("young", 503, 10), sent("old", 503, 90)) == ["old", "young"]


def test_an_attempt_that_may_be_under_way_is_waited_for() -> None:
    seconds = SETTLED.total_seconds() / 60
    assert guids(sent("a", 503, seconds)) == ["a"]
    assert guids(sent("a", 503, seconds - 0.1)) == []
    assert guids(sent("a", 503, 60), sent("a", 503, 0)) == []


def test_each_attempt_waits_longer_for_the_next_and_the_last_for_a_person() -> None:
    for attempts, wait in enumerate(WAITS, start=1):
        minutes = wait.total_seconds() / 60
        assert Failed(newest=sent("a", 503, minutes), attempts=attempts).is_due(NOW)
        assert not Failed(newest=sent("a", 503, minutes - 0.1), attempts=attempts).is_due(NOW)
    last = Failed(newest=sent("a", 503, 100_000), attempts=len(WAITS) + 1)
    assert last.given_up
    assert not last.is_due(NOW)
    assert list(WAITS) == sorted(WAITS)


def test_the_newest_attempt_is_the_one_that_is_asked_for_again() -> None:
    (found,) = failed([sent("a", 503, 90, 1), sent("a", 502, 30, 7), sent("a", 500, 60, 3)], NOW)
    assert (found.newest.id, found.attempts) == (7, 3)


def test_an_event_is_known_under_the_key_that_the_receiver_gave_it() -> None:
    headers = CIMultiDict({"x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"})
    given = idempotency.key(Idempotency(source="Provider"), "github", headers, b"{}", bytes(32))
    assert key("72d3162e-cc78-11e3-81ab-4c9367dc0958") == given


def test_a_look_goes_back_as_far_as_ids_are_remembered_and_github_s_list_goes() -> None:
    def row(window: timedelta) -> EndpointRow:
        by_provider = Idempotency(source="Provider", window=window)
        github = Verification(scheme="github")
        return EndpointRow(id=UUID(int=1), namespace="s", name="e", verification=github, idempotency=by_provider)

    assert looks_back(row(timedelta(hours=24))) == timedelta(hours=24)
    assert looks_back(row(timedelta(hours=720))) == KEPT


@pytest.mark.parametrize(
    ("status", "headers", "reason", "wait"),
    [
        (401, {}, "TokenRefused", 0),
        (403, {}, "TokenRefused", 0),
        (404, {}, "HookNotFound", 0),
        (422, {}, "Refused", 0),
        (500, {}, "GitHubUnavailable", 0),
        (302, {}, "GitHubUnavailable", 0),
        (429, {}, "RateLimited", SECONDARY.total_seconds()),
        (429, {"Retry-After": "30"}, "RateLimited", 30),
        (403, {"Retry-After": "30", "X-RateLimit-Remaining": "7"}, "RateLimited", 30),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{in_ten_minutes}"}, "RateLimited", 600),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "never"}, "RateLimited", SECONDARY.total_seconds()),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, "RateLimited", 1),
        (429, {"Retry-After": "a while"}, "RateLimited", SECONDARY.total_seconds()),
    ],
)
def test_each_refusal_of_github_s_is_told_and_its_waits_are_kept(
    status: int, headers: dict[str, str], reason: str, wait: float
) -> None:
    at = str(int(NOW.timestamp()) + 600)
    named = CIMultiDict({name: value.replace("{in_ten_minutes}", at) for name, value in headers.items()})
    found = refused(status, named, NOW)
    assert found is not None
    assert (found.reason, found.wait.total_seconds()) == (reason, wait)
    assert found.message


def test_an_answer_that_refuses_nothing_is_none() -> None:
    assert refused(200, CIMultiDict(), NOW) is None
    assert refused(202, CIMultiDict(), NOW) is None


def test_a_report_says_what_a_look_came_to() -> None:
    missing = [Failed(newest=sent("a", 503), attempts=1), Failed(newest=sent("b", 503), attempts=9)]
    assert report([], 0, None).reason == "Healed"
    assert report(missing, 1, None).reason == "Healing"
    assert report(missing[1:], 0, None).reason == "GivenUp"
    limited = report(missing, 1, Trouble(reason="RateLimited", message="m", wait=timedelta(seconds=9)))
    assert (limited.reason, limited.missing, limited.requested, limited.wait.seconds) == ("RateLimited", 2, 1, 9)

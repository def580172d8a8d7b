from dataclasses import replace
from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest

from kapsel_resources.kinds.limits import Defaults
from kapsel_resources.kinds.retry_policy import Retry, RetryPolicySpec
from kapsel_resources.kinds.webhook_endpoint import Destination
from kapsel_resources.precedence import resolve
from kapsel_store.rows import Backoff, DestinationRow, Policy, RateLimit

RETRY = {
    "backoff": [{"initial": "1s"}, {"initial": "2s"}, {"initial": "3s"}],
    "maxAttempts": [1, 2, 3],
    "maxAge": ["1h", "2h", "3h"],
    "retryOn": [{"statusCodes": ["500"]}, {"statusCodes": ["501"]}, {"statusCodes": ["502"]}],
    "retryAfter": [{"max": "1m"}, {"max": "2m"}, {"max": "3m"}],
    "circuitBreaker": [{"probes": 11}, {"probes": 12}, {"probes": 13}],
}
LIMITS = {
    "timeout": ["1s", "2s"],
    "maxInFlight": [1, 2],
    "rateLimit": [{"requestsPerSecond": 1, "burst": 1}, {"requestsPerSecond": 2, "burst": 2}],
}
SOURCES = ("destination", "RetryPolicy patient", "Relay")


@pytest.fixture
def resolved(resource):
    def resolved(destination=None, policy=None, relay=None):
        return resolve(
            Destination.model_validate({"name": "billing", "url": "https://a.example/", **(destination or {})}),
            None if policy is None else resource("RetryPolicy", "patient", policy),
            Defaults.model_validate(relay or {}),
        )

    return resolved


def _of(policy, member):
    return {
        "backoff": policy.backoff.initial,
        "maxAttempts": policy.max_attempts,
        "maxAge": policy.max_age,
        "retryOn": policy.retry_status_codes,
        "retryAfter": policy.retry_after_max,
        "circuitBreaker": policy.circuit_breaker,
    }[member]


def test_what_nobody_says_is_kapsels_own_default(resolved):
    found = resolved()

    assert found.policy == Policy()
    row = DestinationRow(id=UUID(int=0), endpoint_id=UUID(int=0), name="", url="")
    assert (found.timeout, found.max_in_flight, found.rate_limit) == (row.timeout, row.max_in_flight, row.rate_limit)
    assert found.sources == ()


@pytest.mark.parametrize("member", RETRY)
@pytest.mark.parametrize("levels", [levels for levels in product((False, True), repeat=3) if any(levels)])
def test_the_nearest_level_that_writes_a_member_is_the_one_that_holds(resolved, member, levels):
    retries = [{member: value} if writes else {} for value, writes in zip(RETRY[member], levels, strict=True)]
    nearest = levels.index(True)

    found = resolved({"retry": retries[0]}, retries[1], {"retry": retries[2]})

    alone = resolved(policy={member: RETRY[member][nearest]})
    assert _of(found.policy, member) == _of(alone.policy, member)
    assert found.sources == ((member, SOURCES[nearest]),)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("own", [True, False])
def test_a_limit_of_the_destination_goes_before_that_of_the_relay(resolved, limit, own):
    mine, common = LIMITS[limit]

    found = resolved({limit: mine} if own else {}, relay={limit: common})

    alone = resolved({limit: mine if own else common})
    assert found.sources == ((limit, "destination" if own else "Relay"),)
    assert replace(found, sources=()) == replace(alone, sources=())


def test_levels_are_mixed_member_by_member_and_a_member_is_taken_whole(resolved):
    found = resolved(
        {"retry": {"backoff": {"initial": "7s"}}, "timeout": "3s"},
        {"backoff": {"initial": "9s", "factor": 3}, "maxAttempts": 4},
        {"retry": {"maxAttempts": 5, "maxAge": "5h"}, "rateLimit": {"requestsPerSecond": 5, "burst": 6}},
    )

    assert found.policy.backoff == Backoff(initial=timedelta(seconds=7))
    assert (found.policy.max_attempts, found.policy.max_age) == (4, timedelta(hours=5))
    assert (found.timeout, found.rate_limit) == (timedelta(seconds=3), RateLimit(requests_per_second=5.0, burst=6))
    assert dict(found.sources) == {
        "backoff": "destination",
        "timeout": "destination",
        "maxAttempts": "RetryPolicy patient",
        "maxAge": "Relay",
        "rateLimit": "Relay",
    }


def test_a_value_that_is_written_and_equals_the_default_is_still_the_word_of_who_wrote_it(resolved):
    found = resolved({"retry": {"maxAttempts": 12}}, {"maxAttempts": 3})

    assert found.policy.max_attempts == 12
    assert found.sources == (("maxAttempts", "destination"),)


def test_the_members_of_a_retry_are_those_of_a_retry_policy():
    assert set(Retry.model_fields) == set(RetryPolicySpec.model_fields)
    assert set(Retry.aliases()) == set(RETRY)

"""Why a delivery is where it is: every state and every reason gets words, and times are those of the policy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kapsel_console.explanation import Explanation, explain, proof_status
from kapsel_store import ids
from kapsel_store.attempts import ListedAttempt
from kapsel_store.circuits import CircuitRow
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.facts import Facts, Leaf, Relative
from kapsel_store.holds import Hold
from kapsel_store.limits import Bucket, Grant
from kapsel_store.reasons import REASONS, reason
from kapsel_store.rows import (
    AttemptRow,
    Backoff,
    Batch,
    CircuitBreaker,
    DestinationRow,
    LogRow,
    Policy,
    RateLimit,
    Witness,
    Witnessing,
)
from kapsel_store.states import State
from kapsel_store.turns import Place

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID, EVENT, ENDPOINT, DESTINATION, OTHER = (UUID(int=number) for number in range(1, 6))
LOG = LogRow(namespace="shop", name="main", origin="kapsel.test/shop", key_name="log")
POLICY = Policy(backoff=Backoff(type="Schedule", schedule=(timedelta(minutes=1),), jitter=0.5), max_attempts=5)
MADE = DeliveryRow(
    id=ID,
    event_id=EVENT,
    endpoint_id=ENDPOINT,
    namespace="shop",
    name="orders",
    destination_id=DESTINATION,
    destination="billing",
    state=State.PENDING,
    attempts=0,
    created_at=NOW - timedelta(minutes=2),
    due_at=NOW - timedelta(seconds=1),
    expires_at=NOW + timedelta(hours=1),
    finished_at=None,
    last_reason=None,
    acknowledgement=None,
    replay_of=None,
)
KNOWN = Facts(
    now=NOW,
    delivery=MADE,
    destination=DestinationRow(
        id=DESTINATION, endpoint_id=ENDPOINT, name="billing", url="https://b.example.com", policy=POLICY,
        sources=(("maxAttempts", "RetryPolicy patient"), ("timeout", "destination")),
    ),
    removed=False,
    circuit=None,
    ahead=0,
    sending=0,
    lease_expires_at=None,
    deliverers=frozenset({"d-1"}),
    tries=(),
    family=(),
    event_there=True,
    event_erased=False,
    leaf=None,
)  # fmt: skip


def seen(facts: Facts = KNOWN, **fields) -> Explanation:
    return explain(replace(facts, delivery=replace(facts.delivery, **fields)), LOG)


def ended(code: str, state: State = State.EXHAUSTED, attempts: int = 5, **fields) -> Explanation:
    facts = replace(KNOWN, **fields)
    return seen(facts, state=state, attempts=attempts, finished_at=NOW, last_reason=code)


def attempt(number: int, code: str) -> ListedAttempt:
    row = AttemptRow(
        id=UUID(int=100 + number),
        delivery_id=ID,
        event_id=EVENT,
        endpoint_id=ENDPOINT,
        destination_id=DESTINATION,
        number=number,
        started_at=NOW,
        duration=timedelta(seconds=1),
        outcome="refused",
        reason=code,
        url="https://b.example.com",
        payload_hash=None,
        payload_commitment=None,
        signature_digest=None,
        response_status=503,
    )
    return ListedAttempt(attempt=row, namespace="shop", name="orders", destination="billing", leaf_index=None)


def test_a_try_tells_what_exactly_was_wrong_if_its_reason_does_not() -> None:
    exact = attempt(2, "filter_error")
    exact = replace(exact, attempt=exact.attempt._replace(detail="the event has no customer (character 12)"))
    said = seen(replace(KNOWN, tries=(exact, attempt(1, "status_503"))), attempts=2)
    assert [one.detail for one in said.tried] == ["the event has no customer (character 12)", None]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("code", [*REASONS, "status_200", "status_301", "status_404", "status_503", "of_tomorrow"])
def test_every_state_and_reason_has_words(state: State, code: str) -> None:
    final = state not in (State.PENDING, State.SENDING)
    said = seen(state=state, attempts=2, finished_at=NOW if final else None, last_reason=code)
    assert said.summary.endswith(".")
    assert "None" not in said.summary + said.proof + said.ancestry
    assert said.reason == (None if state is State.DELIVERED else code)
    assert bool(said.coming) == (not final)
    assert bool(said.held_by) == (not final)
    if state is not State.DELIVERED:
        assert reason(code).means in said.summary or state is State.SENDING
        assert said.advice or reason(code).fault == "none"


HELD = {
    "destination_removed": {"removed": True},
    "destination_suspended": {"destination": replace(KNOWN.destination, suspend=True)},
    "destination_disabled": {
        "circuit": CircuitRow(
            destination_id=DESTINATION, window_started_at=NOW, disabled_at=NOW, disabled_reason="status_410"
        )
    },
    "circuit_open": {
        "circuit": CircuitRow(
            destination_id=DESTINATION, window_started_at=NOW, state="open", open_until=NOW + timedelta(seconds=30)
        )
    },
    "circuit_half_open": {
        "circuit": CircuitRow(
            destination_id=DESTINATION, window_started_at=NOW, state="half_open", open_until=NOW + timedelta(seconds=30)
        )
    },
    "no_deliverer": {"deliverers": frozenset()},
    "retry_scheduled": {"delivery": replace(MADE, due_at=NOW + timedelta(seconds=5))},
    "rate_limited": {
        "ahead": 7,
        "destination": replace(KNOWN.destination, rate_limit=RateLimit(requests_per_second=2, burst=2)),
    },
    "concurrency_full": {"sending": 32, "ahead": 1000},
    "circuit_recovering": {
        "ahead": 9,
        "circuit": CircuitRow(destination_id=DESTINATION, window_started_at=NOW, recovering_since=NOW),
    },
    "slots_held": {
        "sending": 2,
        "slots": {"d-0": Grant(count=30, wanted=30, until=NOW + timedelta(seconds=9))},
    },
    "places_taken": {"lacking": 1},
    "batch_gathers": {"destination": replace(KNOWN.destination, batch=Batch())},
    "order_key_waits": {
        "place": Place(
            held=True, shown="c-7", ahead=2, head=OTHER, head_state=State.SENDING, blocked_by=None, blocked_at=None
        )
    },
    "order_key_blocked": {
        "place": Place(
            held=True, shown="c-7", ahead=0, head=ID, head_state=State.PENDING, blocked_by=OTHER, blocked_at=NOW
        )
    },
    "being_sent": {"delivery": replace(MADE, state=State.SENDING, attempts=1)},
    "due": {},
}


@pytest.mark.parametrize("code", [reason.code for reason in REASONS.values() if reason.kind == "wait"])
def test_whatever_a_delivery_waits_for_is_named_first(code: str) -> None:
    said = explain(replace(KNOWN, **HELD[code]), LOG)
    assert [hold.reason for hold in said.held_by] == [code]
    assert said.reason == code
    assert said.held_by[0].text.startswith(reason(code).means)


def only(**fields) -> Hold:
    """Return the one thing that keeps a delivery."""
    [found] = explain(replace(KNOWN, **fields), LOG).held_by
    return found


def test_a_delivery_that_waits_for_a_token_says_when_it_comes() -> None:
    slow = replace(KNOWN.destination, rate_limit=RateLimit(requests_per_second=2, burst=4))
    empty = Bucket(tokens=0.0, filled_at=NOW, outstanding={})
    first = only(destination=slow, bucket=empty)
    assert (first.reason, first.until) == ("rate_limited", NOW + timedelta(seconds=0.5))
    assert first.text == "it waits for a token of `rateLimit`: 0 are before it, at 2 a second"
    behind = only(destination=slow, bucket=empty, ahead=5)
    assert behind.until == NOW + timedelta(seconds=3)
    filled = Bucket(tokens=0.0, filled_at=NOW - timedelta(seconds=2), outstanding={})
    assert only(destination=slow, bucket=filled, ahead=3).reason == "due"
    lent = replace(filled, outstanding={"d-1": (4, NOW + timedelta(seconds=1))})
    assert only(destination=slow, bucket=lent).reason == "rate_limited"


def test_a_delivery_of_a_batch_says_when_it_goes_at_the_latest_and_is_only_due_after_that() -> None:
    together = replace(KNOWN.destination, batch=Batch(max_events=50, interval=timedelta(minutes=2)))
    waits = replace(MADE, due_at=NOW - timedelta(seconds=30))
    found = only(destination=together, delivery=waits, ahead=7)
    assert (found.reason, found.until) == ("batch_gathers", NOW + timedelta(seconds=90))
    assert found.text.endswith(": up to 50 at once, after 120 s at the latest")
    [coming, *_] = explain(replace(KNOWN, destination=together, delivery=waits, ahead=7), LOG).coming
    assert (coming.earliest, coming.latest) == (NOW, NOW + timedelta(seconds=90))
    behind = only(destination=together, delivery=waits, ahead=50)
    assert (behind.reason, behind.until) == ("batch_gathers", None)
    assert behind.text.endswith(": up to 50 at once, and 50 are before it")
    late = replace(MADE, due_at=NOW - timedelta(minutes=2))
    assert only(destination=together, delivery=late).reason == "due"
    settings = {setting.name: setting for setting in explain(replace(KNOWN, destination=together), LOG).policy}
    assert settings["batch"].value == "up to 50 in a request, and 2m between those not full"
    assert settings["batch"].source == "destination"


def test_a_destination_that_recovers_says_its_pace_and_its_next_step() -> None:
    circuit = CircuitRow(destination_id=DESTINATION, window_started_at=NOW, recovering_since=NOW - timedelta(seconds=7))
    found = only(circuit=circuit, ahead=20)
    assert (found.reason, found.until) == ("circuit_recovering", None)
    assert found.text.endswith(": 20 are before it, at 6 a second, and faster from 2026-03-01T12:00:05Z on")
    drained = replace(
        KNOWN.destination, policy=replace(POLICY, circuit_breaker=CircuitBreaker(recovery=timedelta(0), drain=20.0))
    )
    found = only(circuit=circuit, ahead=20, destination=drained)
    assert found.text.endswith(": 20 are before it, at 20 a second until what waited is through")
    slower = replace(KNOWN.destination, rate_limit=RateLimit(requests_per_second=1, burst=1))
    assert only(circuit=circuit, ahead=20, destination=slower).reason == "rate_limited"


def test_slots_that_a_deliverer_kept_which_is_gone_are_told_with_the_end_of_their_lease() -> None:
    until = NOW + timedelta(seconds=9)
    gone, alive = Grant(count=31, wanted=31, until=until), Grant(count=1, wanted=32, until=until)
    found = only(slots={"d-0": gone, "d-1": alive}, sending=1)
    assert (found.reason, found.until) == ("slots_held", until)
    assert found.text.endswith(": 31 of 32 with d-0")
    assert only(slots={"d-0": gone, "d-1": alive}, sending=0).reason == "due"
    assert only(slots={"d-0": replace(gone, until=NOW)}, sending=1).reason == "due"


def test_places_are_told_of_when_no_deliverer_has_one() -> None:
    assert only(lacking=1, sending=7, ahead=3).text.endswith(": 7 are under way, and 3 are before it")
    assert only(lacking=1, deliverers=frozenset({"d-1", "d-2"})).reason == "due"


@pytest.mark.parametrize("state", [State.PENDING, State.EXHAUSTED])
def test_a_destination_that_will_be_disabled_is_warned_of_with_the_time(state: State) -> None:
    days = timedelta(days=1)
    warned = replace(
        KNOWN,
        destination=replace(
            KNOWN.destination, policy=replace(POLICY, circuit_breaker=CircuitBreaker(disable_after=4 * days))
        ),
        circuit=CircuitRow(
            destination_id=DESTINATION, window_started_at=NOW, failing_since=NOW - 3 * days, warned_at=NOW - days
        ),
    )
    ends = None if state is State.PENDING else NOW
    said = seen(warned, state=state, attempts=2, last_reason="status_503", finished_at=ends).advice[0]
    assert said == (
        "Mend the destination: it has done nothing but fail since 2026-02-26T12:00:00Z, and the first try that fails "
        "after 2026-03-02T12:00:00Z disables it."
    )
    calm = replace(warned, circuit=replace(warned.circuit, warned_at=None))
    assert not any("disables" in one for one in seen(calm, attempts=2, last_reason="status_503").advice)


def test_several_things_that_keep_it_are_all_named() -> None:
    facts = replace(KNOWN, **(HELD["circuit_open"] | HELD["no_deliverer"] | HELD["retry_scheduled"]))
    assert [hold.reason for hold in explain(facts, LOG).held_by] == ["circuit_open", "no_deliverer", "retry_scheduled"]


def test_the_next_tries_lie_where_the_policy_and_its_jitter_put_them() -> None:
    due = NOW + timedelta(seconds=10)
    said = seen(attempts=2, due_at=due, last_reason="status_503")
    third, fourth, fifth = said.coming
    assert (third.number, third.earliest, third.latest) == (3, due, due)
    timeout = KNOWN.destination.timeout
    assert (fourth.number, fourth.earliest) == (4, due + timedelta(seconds=30))
    assert fourth.latest == due + timeout + timedelta(seconds=90)
    assert (fifth.number, fifth.earliest) == (5, due + timedelta(seconds=60))


def test_no_try_is_foreseen_beyond_its_age_or_while_nobody_knows_when_it_goes_on() -> None:
    assert [one.number for one in seen(expires_at=NOW + timedelta(seconds=45)).coming] == [1, 2]
    assert seen(expires_at=NOW + timedelta(seconds=45)).coming[1].latest == NOW + timedelta(seconds=45)
    for code in ("destination_suspended", "destination_disabled", "no_deliverer"):
        assert explain(replace(KNOWN, **HELD[code]), LOG).coming == ()
    opened = explain(replace(KNOWN, **HELD["circuit_open"]), LOG)
    assert opened.coming[0].earliest == NOW + timedelta(seconds=30)


def test_a_policy_that_has_become_shorter_ends_it_earlier() -> None:
    shorter = replace(KNOWN.destination, policy=replace(POLICY, max_age=timedelta(minutes=3)))
    assert seen(replace(KNOWN, destination=shorter)).expires_at == MADE.created_at + timedelta(minutes=3)


@pytest.mark.parametrize(
    ("code", "attempts", "says"),
    [
        ("status_503", 5, "all 5 tries are used up"),
        ("status_404", 1, "the policy does not retry this"),
        ("status_410", 1, "it is gone and wants no more"),
        ("dns", 2, "its age would be up before the next try; after 2 tries"),
        ("never_tried", 0, "its age was up before it could be tried at all"),
        ("destination_suspended", 0, "its age was up before it could be tried at all: the manifest suspends"),
    ],
)
def test_what_was_given_up_says_which_bound_ended_it(code: str, attempts: int, says: str) -> None:
    assert says in ended(code, attempts=attempts).summary


def test_what_outlived_its_age_says_so() -> None:
    said = seen(state=State.EXHAUSTED, attempts=1, last_reason="dns", finished_at=MADE.expires_at)
    assert "its age was up after 1 try" in said.summary


def test_a_delivery_that_arrived_says_how_and_asks_for_nothing() -> None:
    tries = tuple(attempt(number, "status_204") for number in (3, 2, 1))
    said = ended("status_204", State.DELIVERED, attempts=3, tries=tries)
    assert said.summary == "It was delivered by try 3, 2m after it was made: it took the webhook, with status 204."
    assert (said.reason, said.fault, said.advice) == (None, "none", ())


def test_a_try_that_a_dead_deliverer_left_no_record_of_is_told() -> None:
    second = replace(KNOWN, tries=(attempt(2, "status_204"),))
    said = seen(second, state=State.DELIVERED, attempts=2, finished_at=NOW, last_reason="status_204").summary
    assert "Of try 1 there is no record: the deliverer died or hung before it could make one" in said
    waits = replace(KNOWN, tries=(attempt(2, "dns"),))
    assert "Of tries 1 and 3 there is no record" in seen(waits, attempts=3, last_reason="dns").summary
    assert "Of try 1 there is no record" in seen(attempts=2, state=State.SENDING).summary


def test_no_record_is_missed_of_a_try_that_is_under_way_or_told_of_or_older_than_what_is_shown() -> None:
    newest = replace(KNOWN, tries=tuple(attempt(number, "dns") for number in range(9, 4, -1)))
    assert "no record" not in seen(newest, attempts=9, last_reason="dns").summary
    assert "no record" not in seen(newest, attempts=10, last_reason="dns", state=State.SENDING).summary
    assert "no record" not in ended("lease_expired", attempts=10, tries=newest.tries).summary


def test_a_try_that_failed_by_a_manifest_is_never_said_to_need_nothing() -> None:
    tries = (attempt(1, "filter_error"),)
    waits = replace(KNOWN, tries=tries)
    said = seen(waits, attempts=1, last_reason="filter_error", due_at=NOW + timedelta(minutes=1))
    assert [hold.reason for hold in said.held_by] == ["retry_scheduled"]
    assert said.advice[0] == reason("filter_error").advice
    assert not any("Nothing needs to be done" in one for one in said.advice)
    assert seen(due_at=NOW + timedelta(minutes=1)).advice[0] == "Nothing needs to be done."


def test_what_is_under_way_is_told_to_be_cancelled_only_when_its_try_has_ended() -> None:
    assert seen(state=State.SENDING, attempts=1).advice[-1].endswith("once the try that is under way has ended.")
    assert seen().advice[-1] == f"To end it: `kapsel cancel {ID}`."


def test_what_a_filter_kept_back_says_what_to_correct() -> None:
    assert ended("filtered", State.CANCELLED, attempts=0).advice == (
        "If it should get it, correct `filter` of the destination.",
        f"When that is mended: `kapsel retry {ID}`, or a Replay for many.",
    )


def test_no_proof_is_promised_of_what_was_erased() -> None:
    proven = replace(KNOWN, leaf=replace(LEAF, published=True), tries=(attempt(1, "dns"),))
    assert "kapsel proof" in seen(proven, attempts=1).proof
    assert "nothing can be proven" in seen(replace(proven, event_erased=True), attempts=1).proof
    assert "it was not tried" in seen(replace(KNOWN, event_erased=True)).proof


def test_every_value_of_the_policy_says_who_declared_it() -> None:
    sources = {one.name: one.source for one in seen().policy}
    assert sources["maxAttempts"] == "RetryPolicy patient"
    assert (sources["timeout"], sources["maxAge"]) == ("destination", "kapsel")
    values = {one.name: one.value for one in seen().policy}
    assert (values["backoff"], values["maxAge"]) == ("1m, spread by 50%", "72h")


def test_all_of_a_circuit_breaker_is_told_with_who_declared_it() -> None:
    breaker = CircuitBreaker(probes=2, drain=5.0, disable_after=timedelta(hours=120), warn_at=0.5)
    declared = replace(
        KNOWN.destination,
        policy=replace(POLICY, circuit_breaker=breaker),
        sources=(("circuitBreaker", "RetryPolicy patient"),),
    )
    said = {one.name: one for one in explain(replace(KNOWN, destination=declared), LOG).policy}
    assert {name: said[f"circuitBreaker.{name}"].value for name in ("probes", "drain", "disableAfter", "warnAt")} == {
        "probes": "2 at once when it is half-open",
        "drain": "5 a second until what waited is through",
        "disableAfter": "120h of nothing but failures",
        "warnAt": "50% of that, after 60h",
    }
    assert {one.source for name, one in said.items() if name.startswith("circuitBreaker")} == {"RetryPolicy patient"}
    usual = {one.name: one.value for one in seen().policy}
    assert (usual["circuitBreaker.disableAfter"], usual["circuitBreaker.warnAt"]) == ("never", "never")
    none = replace(KNOWN, destination=replace(declared, policy=replace(POLICY, circuit_breaker=None)))
    assert not any(one.name.startswith("circuitBreaker.") for one in explain(none, LOG).policy)


def test_no_age_is_told_in_microseconds() -> None:
    soon = MADE.created_at + timedelta(microseconds=18_724)
    said = seen(state=State.EXHAUSTED, attempts=1, last_reason="status_404", finished_at=soon)
    assert said.summary.startswith("It was given up less than a second after it was made, for the policy")
    later = seen(state=State.EXHAUSTED, attempts=1, last_reason="status_404", finished_at=soon + timedelta(seconds=61))
    assert later.summary.startswith("It was given up 1m1s after it was made")


def test_each_try_says_what_its_answer_meant() -> None:
    said = seen(replace(KNOWN, tries=(attempt(2, "status_503"), attempt(1, "dns"))), attempts=2, last_reason="dns")
    assert [(one.number, one.reason, one.fault) for one in said.tried] == [
        (2, "status_503", "destination"),
        (1, "dns", "destination"),
    ]
    assert said.tried[1].text == reason("dns").means


def test_replays_are_told_in_both_directions() -> None:
    first = Relative(id=ID, state=State.EXHAUSTED, created_at=NOW, finished_at=NOW, last_reason="dns", replay_of=None)
    again = replace(first, id=OTHER, replay_of=ID, state=State.DELIVERED)
    family = replace(KNOWN, family=(first, again))
    old = seen(family, state=State.EXHAUSTED, finished_at=NOW, last_reason="dns", attempts=5)
    assert f"delivered again as {OTHER}, which is delivered" in old.ancestry
    assert f"See what became of it: `kapsel explain {OTHER}`." in old.advice
    new = seen(family, id=OTHER, replay_of=ID)
    assert f"delivers again what delivery {ID} was to deliver, which ended as exhausted" in new.ancestry


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "kapsel retry"),
        ({"event_there": False}, "its event is gone"),
        ({"event_erased": True}, "its event is gone"),
        ({"removed": True}, "its destination was removed, and one of that name that was declared later is another one"),
    ],
)
def test_a_failed_one_says_whether_it_can_be_delivered_again(fields: dict[str, bool], says: str) -> None:
    assert says in ended("status_503", **fields).advice[-1]


LEAF = Leaf(attempt_id=ids.first_at(NOW), leaf_index=7, published=False, frozen_reason=None, parked_reason=None)
RECENT = ids.first_at(NOW - timedelta(seconds=20))
SLOW_LOG = replace(LOG, integrate_interval=timedelta(seconds=10), publish_interval=timedelta(seconds=1))
OLD = replace(LEAF, attempt_id=ids.first_at(NOW - timedelta(hours=1)))
WITNESSING = Witnessing(witnesses=(Witness(name="a", vkey="k", url="https://a"),) * 3, quorum=2, required=True)


@pytest.mark.parametrize(
    ("leaf", "log", "says"),
    [
        (None, LOG, "it was not tried"),
        (replace(LEAF, published=True), LOG, "under a signed head"),
        (LEAF, LOG, "Leaf 7 waits for a signed head over it."),
        (OLD, LOG, "none was signed for longer than usual: see the attestor's log"),
        (OLD, replace(LOG, witnessing=WITNESSING), "heads are withheld until 2 of 3 witnesses cosign"),
        (LEAF, replace(LOG, witnessing=WITNESSING), "Leaf 7 waits for a signed head over it."),
        (replace(LEAF, frozen_reason="it forked"), LOG, "The log is frozen"),
        (replace(LEAF, leaf_index=None), LOG, "The try waits for its leaf."),
        (replace(OLD, leaf_index=None), LOG, "waits for its leaf, and has waited longer than usual"),
        (replace(LEAF, attempt_id=RECENT, leaf_index=None), SLOW_LOG, "The try waits for its leaf."),
        (replace(LEAF, leaf_index=None, parked_reason="it is too long"), LOG, "it is too long"),
        (replace(LEAF, leaf_index=None, frozen_reason="it forked"), LOG, "the log that follows"),
        (replace(LEAF, leaf_index=None), None, "No log is declared"),
    ],
)
def test_how_far_the_proof_is(leaf: Leaf | None, log: LogRow | None, says: str) -> None:
    assert says in proof_status(leaf, log, NOW)

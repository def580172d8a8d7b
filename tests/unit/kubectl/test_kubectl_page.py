"""The page of `kubectl kapsel status`: what is wrong comes with what to do about it, what is well takes one line."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from kapsel_cli.kubectl.advice import BY_REASON, advice
from kapsel_cli.kubectl.page import MOST, Line, Mark, is_well, page, troubles
from kapsel_cli.kubectl.view import Condition, View, view
from kapsel_resources.reasons import Reason

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
FAILS = "It fails, and is tried a little until it works again. See how it fails"


def resource(kind: str, name: str = "main", age: timedelta = HOUR, **fields: Any) -> View:
    """Return a resource with conditions such as Ready="True" or Stalled="True SecretNotFound: there is none"."""
    conditions = []
    for type_, text in fields.pop("conditions", {}).items():
        status, _, rest = text.partition(" ")
        reason, _, message = rest.partition(": ")
        conditions.append({"type": type_, "status": status, "reason": reason, "message": message})
    value = {
        "metadata": {
            "namespace": "shop", "name": name, "generation": fields.pop("generation", 1),
            "creationTimestamp": (NOW - age).isoformat(),
        },
        "spec": fields.pop("spec", {}),
        "status": {"observedGeneration": 1, "conditions": conditions, **fields},
    }  # fmt: skip
    return view(kind, value)


def printed(lines: list[Line]) -> list[str]:
    return [f"{'  ' * line.indent}{line.mark or ' '} {line.text}" for line in lines]


def test_a_relay_that_is_well_shows_its_figures() -> None:
    relay = resource(
        "Relay", conditions={"Ready": "True Accepted"}, address={"url": "https://hooks.example.com"}, version="0.1.0",
        schemaVersion="0002", configurationGeneration=12, endpoints=4, unhealthyEndpoints=1, pending=8123,
        oldestPending="3m12s",
    )  # fmt: skip
    lines = page([relay], NOW)
    assert printed(lines) == [
        "✓ Relay shop/main, https://hooks.example.com",
        "    version 0.1.0, schema 0002, configuration 12",
        "    4 endpoints, 1 of them not well; 8123 deliveries wait, the oldest for 3m12s",
    ]
    assert is_well(lines)


def test_the_cause_is_shown_and_not_what_follows_from_it() -> None:
    conditions = {
        "Ready": "False DatabaseUnreachable: the database does not answer",
        "DatabaseReachable": "False DatabaseUnreachable: db:5432 refuses the connection.",
        "ReceiverAvailable": "True Available",
    }
    lines = page([resource("Relay", conditions=conditions)], NOW)
    assert printed(lines) == [
        "✗ Relay shop/main",
        "  ✗ not DatabaseReachable: DatabaseUnreachable: db:5432 refuses the connection",
        "      → Callers get 503 and send again later. Bring the database back, or correct its URL",
    ]
    assert not is_well(lines)


def test_a_destination_in_trouble_is_a_warning_with_its_last_answer() -> None:
    orders = resource(
        "WebhookEndpoint", "orders",
        conditions={"Ready": "True Accepted", "Delivering": "False CircuitOpen: 1 of 2 destinations is cut off"},
        pending=41, oldestPending="12m",
        destinations=[
            {"name": "billing", "state": "CircuitOpen", "pending": 41, "lastReason": "status_503"},
            {"name": "crm", "state": "Delivering", "pending": 0},
        ],
    )  # fmt: skip
    assert printed(page([orders, resource("WebhookEndpoint", "fine", conditions={"Ready": "True X"})], NOW)) == [
        "! WebhookEndpoint shop/orders (41 wait, the oldest for 12m)",
        "  ! not Delivering: CircuitOpen: 1 of 2 destinations is cut off",
        f"      → {FAILS}: kubectl kapsel attempts -n shop --endpoint orders",
        "      billing: CircuitOpen, 41 waiting, last: status_503",
        "✓ WebhookEndpoint shop/fine: well",
    ]


def test_what_only_its_author_can_mend_is_said_once() -> None:
    why = "SecretNotFound: there is no Secret"
    conditions = {"Ready": f"False {why}", "DatabaseReachable": f"False {why}", "Stalled": f"True {why}"}
    key = resource("Relay", conditions=conditions)
    assert printed(troubles(key, NOW)) == [
        "✗ Stalled: SecretNotFound: there is no Secret",
        "    → Correct the name, or apply the Secret",
    ]


def test_what_waits_for_its_relay_is_counted() -> None:
    why = "DatabaseUnreachable: db:5432 refuses the connection"
    relay = resource("Relay", conditions={"Ready": f"False {why}", "DatabaseReachable": f"False {why}"})
    waits = [resource("WebhookEndpoint", f"e{n}", conditions={"Ready": f"Unknown {why}"}) for n in range(3)]
    loads = resource("SigningKey", "key", conditions={"Ready": "Unknown Loading: it is about to be written"})
    lines = page([relay, *waits, loads], NOW)
    assert [line.text for line in lines if line.indent == 0] == [
        "Relay shop/main", "waiting for their Relay: 3 of WebhookEndpoint, 1 of SigningKey",
    ]  # fmt: skip


def test_what_is_wrong_with_several_in_the_same_way_is_said_once() -> None:
    why = "Unknown Loading: 1 of 4 processes have not loaded generation 7"
    lines = page([resource("WebhookEndpoint", f"e{n}", conditions={"Ready": why}) for n in range(3)], NOW)
    assert [line.text for line in lines if line.indent == 0] == ["WebhookEndpoint shop/e0 and 2 more"]
    assert len(lines) == 3


def test_pods_that_were_never_made_are_no_second_trouble() -> None:
    conditions = {"DatabaseReachable": "False X: y", "ReceiverAvailable": "False NotCreated: there is no Deployment"}
    assert [line.text for line in troubles(resource("Relay", conditions=conditions), NOW)][0::2] == [
        "not DatabaseReachable: X: y"
    ]


def test_advice_that_the_message_gives_already_is_not_given_twice() -> None:
    stalled = "True SecretNotFound: there is none here; correct the name, or apply the Secret"
    assert len(troubles(resource("SigningKey", conditions={"Stalled": stalled}), NOW)) == 1


def test_what_no_operator_has_looked_at_is_told_from_what_is_new() -> None:
    assert printed(troubles(resource("Relay", age=timedelta(seconds=5)), NOW)) == ["· new, 5s old"]
    lines = page([resource("Relay"), resource("WebhookEndpoint", age=2 * HOUR), resource("SigningKey")], NOW)
    assert printed(lines[:1]) == ["✗ no operator has looked at Relay shop/main and 2 more for 2h"]
    assert "component=operator" in lines[1].text
    assert len(lines) == 2


def test_a_paused_resource_says_how_it_goes_on() -> None:
    paused = resource("Relay", generation=2, conditions={"Ready": "True X", "Paused": "True Annotation"})
    assert printed(troubles(paused, NOW)) == [
        "! paused: no change of it is carried out",
        "    → kubectl annotate relay main -n shop kapsel.dev/reconcile-",
    ]


def test_a_change_that_was_just_made_is_no_trouble() -> None:
    changed = resource("Relay", generation=2, conditions={"Ready": "True X"})
    lines = page([changed], NOW)
    assert printed(lines)[1:] == ["  · its newest change has not been looked at yet"]
    assert is_well(lines)


def test_a_log_shows_its_size_and_how_fresh_its_head_is() -> None:
    head = {"treeSize": 1893771, "timestamp": (NOW - timedelta(seconds=4)).isoformat()}
    well = resource("AttestationLog", "log", conditions={"Ready": "True X"}, origin="log.example.com/a", head=head)
    assert printed(page([well], NOW)) == [
        "✓ AttestationLog shop/log, log.example.com/a: 1893771 leaves, signed 4s ago: well"
    ]
    frozen = resource("AttestationLog", "log", conditions={"LogConsistent": "False Older: it is older than the fence"})
    (first, step) = troubles(frozen, NOW)
    assert printed([first]) == ["✗ not LogConsistent: Older: it is older than the fence"]
    assert "nothing is signed until a person has decided" in step.text


def test_a_log_without_attempts_and_one_that_was_replaced_are_no_trouble() -> None:
    new = resource("AttestationLog", conditions={"Ready": "True X", "CheckpointFresh": "False NoHead: none yet"})
    old = resource("AttestationLog", "old", conditions={"Ready": "False Superseded: another one was declared"})
    lines = page([new, old], NOW)
    assert is_well(lines)
    assert printed(lines)[1] == "  · not CheckpointFresh: NoHead: none yet"


def test_calendars_that_are_away_are_a_warning_and_blocks_that_take_hours_are_none() -> None:
    def said(reason: str) -> list[Line]:
        conditions = {"Ready": "True X", "Anchored": f"False {reason}: why"}
        return [*troubles(resource("AttestationLog", conditions=conditions), NOW)]

    (promised, *_) = said("Promised")
    assert promised.mark is Mark.NOTE
    (away, step) = said("CalendarsAway")
    assert (away.mark, away.text) == (Mark.WARNING, "not Anchored: CalendarsAway: why")
    assert "name others" in step.text


def test_witnesses_that_are_missing_are_a_warning_and_who_they_are_is_said() -> None:
    missing = "2 witnesses are needed, and heads are withheld: cosigned by one; not by two: it answers 503"
    conditions = {"Ready": "True X", "Witnessed": f"False NoQuorum: {missing}"}
    (line, step) = troubles(resource("AttestationLog", conditions=conditions), NOW)
    assert (line.mark, line.text) == (Mark.WARNING, f"not Witnessed: NoQuorum: {missing}")
    assert "may reach the witnesses" in step.text


def test_what_follows_from_a_frozen_log_is_not_said_again() -> None:
    why = "it is older than the fence"
    log = {"LogConsistent": f"False Frozen: {why}", "CheckpointFresh": f"False NotSigned: {why}"}
    assert [line.text for line in troubles(resource("AttestationLog", conditions=log), NOW)][0::2] == [
        f"not LogConsistent: Frozen: {why}"
    ]


def test_a_page_of_many_troubles_fits_on_a_screen() -> None:
    many = [resource("WebhookEndpoint", f"e{n:03}", conditions={"Stalled": f"True X: {n}"}) for n in range(MOST + 5)]
    lines = page([*many, resource("WebhookEndpoint", "z1", conditions={"Ready": "True X"})], NOW)
    assert printed(lines)[-2:] == [
        "✗ and 5 more of WebhookEndpoint: kubectl get webhookendpoint",
        "✓ WebhookEndpoint shop/z1: well",
    ]


def test_a_status_of_a_newer_operator_is_read_as_far_as_it_is_known() -> None:
    strange = view("Relay", {"metadata": {"namespace": "shop", "name": "main"}, "status": {"conditions": [{}], "x": 1}})
    assert troubles(strange, NOW) == []
    assert page([view("Relay", {"metadata": {"namespace": "shop", "name": "main"}})], NOW) != []


def test_every_reason_leads_to_advice_without_a_gap() -> None:
    relay = resource("Relay", spec={"relayRef": {"name": "main"}})
    for reason in (*get_args(Reason), *BY_REASON):
        said = advice(relay, Condition(type="Stalled", status="True", reason=reason, message=""))
        assert said is None or "{" not in said, reason

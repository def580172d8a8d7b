"""Replays in the plan: which rows they become, whose they are, and when one is another run."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration
from kapsel_store.states import State

SELECTION = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "states": ["exhausted", "cancelled"]}
FEED = {"name": "feed", "url": "https://feed.example.com"}
BILLING = {"name": "billing", "url": "https://billing.example.com"}


@pytest.fixture
def run(now, entropy):
    def run(*resources, existing=None, **arguments):
        return plan(resources, existing=existing or Configuration(), now=now, entropy=entropy, **arguments)

    return run


@pytest.fixture
def endpoint(resource):
    return resource(
        "WebhookEndpoint", "orders", {"verification": {"none": {}}, "destinations": [BILLING, FEED]}, namespace="shop"
    )


@pytest.fixture
def replay(resource):
    def replay(name="again", namespace="shop", **spec):
        return resource(
            "Replay", name, {"endpointRef": {"name": "orders"}, "selection": SELECTION, **spec}, namespace=namespace
        )

    return replay


def said(planned):
    return [(problem.reason, problem.field) for problem in planned.problems]


def test_a_replay_becomes_a_row_of_its_endpoint(run, endpoint, replay):
    planned = run(endpoint, replay(rate=7, suspend=True))

    [row] = planned.replays.rows
    configuration = planned.configuration
    assert (row.namespace, row.name, row.endpoint_id) == ("shop", "again", configuration.endpoints[0].id)
    assert (row.received_from, row.received_to) == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    assert row.states == (State.EXHAUSTED, State.CANCELLED)
    assert (row.rate, row.suspend, row.dry_run, row.destinations) == (7, True, False, None)
    assert Identity("Replay", "shop", "again") in {status.resource for status in planned.statuses if not status.stalled}


def test_named_destinations_are_those_of_the_endpoint(run, endpoint, replay):
    planned = run(endpoint, replay(destinations=["feed"]))

    [feed] = [row.id for row in planned.configuration.destinations if row.name == "feed"]
    assert planned.replays.rows[0].destinations == (feed,)


@pytest.mark.parametrize(
    "same",
    [
        {"rate": 7},
        {"suspend": True},
        {"ttlSecondsAfterFinished": 5},
        {"selection": {**SELECTION, "states": ["cancelled", "exhausted"]}},
        {"selection": {**SELECTION, "from": "2026-01-01T01:00:00+01:00"}},
    ],
)
def test_another_pace_or_spelling_is_the_same_run(run, endpoint, replay, same):
    [one], [other] = (run(endpoint, made).replays.rows for made in (replay(), replay(**same)))
    assert one.id == other.id


@pytest.mark.parametrize(
    "edited",
    [
        {"name": "other"},
        {"destinations": ["billing"]},
        {"dryRun": True},
        {"selection": {**SELECTION, "to": "2026-01-03T00:00:00Z"}},
        {"selection": {**SELECTION, "states": ["exhausted"]}},
    ],
)
def test_another_name_or_selection_is_another_run(run, endpoint, replay, edited):
    [one], [other] = (run(endpoint, made).replays.rows for made in (replay(), replay(**edited)))
    assert one.id != other.id


def _with(**fields):
    return {**SELECTION, "states": ["exhausted"], **fields}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SELECTION, {**SELECTION, "reasons": ["dns"]}),
        (_with(reasons=["dns"]), _with(reasons=["tls"])),
        (_with(faults=["ours"]), _with(faults=["destination"])),
        (_with(), _with(includePending=True)),
        (_with(), _with(filter="true")),
        (_with(filter="true"), _with(filter="false")),
        (_with(), _with(states=["missing"])),
    ],
)
def test_what_else_a_selection_says_makes_another_run_of_it(run, endpoint, replay, first, second):
    [one], [other] = (run(endpoint, replay(selection=selection)).replays.rows for selection in (first, second))
    assert one.id != other.id


def test_a_selection_of_before_there_were_reasons_is_still_the_same_run(run, endpoint, replay):
    [row] = run(endpoint, replay()).replays.rows
    assert str(row.id) == "bbb26d78-3e1e-52b0-c3f6-3d7ea8485398"
    assert (row.reasons, row.missing, row.anyway) == (None, False, False)


def test_reasons_and_faults_become_patterns(run, endpoint, replay):
    selection = _with(reasons=["status_5xx", "status_429", "connect_refused"], faults=["ours"])
    [row] = run(endpoint, replay(selection=selection)).replays.rows
    assert row.reasons is not None
    assert row.reasons[:3] == (r"status\_5__", r"status\_429", r"connect\_refused")
    assert "internal" in row.reasons
    assert r"connect\_timeout" not in row.reasons


def test_what_is_missing_is_selected_alone(run, endpoint, replay):
    [row] = run(endpoint, replay(selection=_with(states=["missing"]), destinations=["feed"])).replays.rows
    assert (row.states, row.missing) == ((), True)
    document = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Replay", "metadata": {"name": "again"}}
    for wrong in (_with(states=["missing", "exhausted"]), _with(states=["missing"], faults=["ours"])):
        problems = parse({**document, "spec": {"endpointRef": {"name": "orders"}, "selection": wrong}})
        assert isinstance(problems, list)
        assert [problem.field for problem in problems] == ["spec.selection.states"]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", (1970, 9000)),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:01Z", (1970, 1970)),
        ("9998-01-01T00:00:00Z", "9999-01-01T00:00:01Z", (9000, 9000)),
    ],
)
def test_times_that_no_event_can_have_are_cut_to_those_that_one_can(run, endpoint, replay, first, last, expected):
    [row] = run(endpoint, replay(selection={"from": first, "to": last})).replays.rows
    assert (row.received_from.year, row.received_to.year) == expected
    assert row.received_from < row.received_to


def test_replays_change_nothing_of_the_configuration(run, endpoint, replay):
    without = run(endpoint).configuration
    assert run(endpoint, replay(), existing=replace(without, generation=1)).configuration == without


def test_an_endpoint_that_does_not_exist_is_named(run, endpoint, replay):
    planned = run(endpoint, replay(endpointRef={"name": "order"}))

    assert said(planned) == [("EndpointNotFound", "spec.endpointRef")]
    assert "did you mean orders?" in str(planned.problems[0])
    assert planned.replays.rows == ()
    assert planned.replays.kept == {("shop", "again")}


def test_a_destination_that_does_not_exist_is_named(run, endpoint, replay):
    planned = run(endpoint, replay(destinations=["billing", "fed"]))
    assert said(planned) == [("DestinationNotFound", "spec.destinations[1]")]
    assert "did you mean feed?" in str(planned.problems[0])


def test_an_endpoint_that_was_never_in_force_cannot_be_replayed(run, resource, replay):
    ailing = resource(
        "WebhookEndpoint",
        "orders",
        {"verification": {"github": {"signingKeyRef": {"name": "none"}}}, "destinations": [BILLING]},
    )
    assert ("EndpointNotReady", "spec.endpointRef") in said(run(ailing, replay()))
    broken = run(replay(), broken=[Identity("WebhookEndpoint", "shop", "orders")])
    assert ("EndpointNotReady", "spec.endpointRef") in said(broken)


def test_a_replay_of_an_endpoint_that_another_relay_carries_is_that_one_s(run, resource, replay):
    relays = [resource("Relay", name, {}, namespace="shop") for name in ("main", "other")]
    theirs = resource(
        "WebhookEndpoint",
        "orders",
        {"relayRef": {"name": "other"}, "verification": {"none": {}}, "destinations": [BILLING]},
    )
    planned = run(*relays, theirs, replay(), relay=("shop", "main"))

    assert said(planned) == []
    assert planned.replays.rows == ()
    assert planned.replays.kept == frozenset()
    assert Identity("Replay", "shop", "again") not in {status.resource for status in planned.statuses}
    assert len(run(*relays, theirs, replay(), relay=("shop", "other")).replays.rows) == 1


def test_a_replay_that_cannot_be_read_keeps_what_it_has(run, endpoint):
    planned = run(endpoint, broken=[Identity("Replay", "shop", "again")])
    assert planned.replays.kept == {("shop", "again")}
    assert planned.replays.complete


def test_nothing_is_removed_while_not_everything_could_be_read(run, endpoint, resource):
    assert not run(endpoint, complete=False).replays.complete
    several = [resource("Relay", name, {}) for name in ("main", "other")]
    assert not run(*several, endpoint).replays.complete


def test_a_filter_is_read_as_the_filter_of_a_destination(run, endpoint, replay):
    planned = run(endpoint, replay(selection=SELECTION | {"filter": "event.body.amount > 100"}))
    assert [row.filter for row in planned.replays.rows] == ["event.body.amount > 100"]
    for wrong in ("event.body.amount >", "event.bodies.amount > 1", "'text'"):
        refused = run(endpoint, replay(selection=SELECTION | {"filter": wrong}))
        assert said(refused) == [("ExpressionInvalid", "spec.selection.filter")]
        assert refused.replays.kept == {("shop", "again")}

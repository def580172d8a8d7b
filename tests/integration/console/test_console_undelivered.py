"""What was not delivered, as the console and the command show it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from kapsel_deliverer.arrears import MOST, show
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_store.states import State
from kapsel_store.undelivered import Oldest

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def owing(world):
    """Two that were given up to billing, one that waits for crm, one that was delivered; all of them count as late."""
    await world.put(2)
    await world.attempt(State.EXHAUSTED)
    await world.put(1)
    await world.attempt()
    await world.put(1, to=world.crm)
    return world


async def test_undelivered_ones_are_listed_with_whose_fault_it_is(console, owing) -> None:
    items = (await console.get("/api/v1/undelivered?late=0s"))["items"]
    assert sorted((one["destination"], one["state"], one["reason"], one["fault"]) for one in items) == [
        ("billing", "exhausted", "status_500", "destination"),
        ("billing", "exhausted", "status_500", "destination"),
        ("crm", "pending", "no_deliverer", "ours"),
    ]
    for query in (
        "destination=shop/orders/billing",
        "endpoint=shop/orders",
        "fault=destination",
        "reason=status_500",
        "reason=status_5xx",
    ):
        assert len((await console.get(f"/api/v1/undelivered?late=0s&{query}"))["items"]) == 2, query
    assert len((await console.get("/api/v1/undelivered"))["items"]) == 2
    first = await console.get("/api/v1/undelivered?late=0s&limit=2")
    rest = await console.get(f"/api/v1/undelivered?late=0s&limit=2&cursor={first['next']}")
    assert {one["id"] for one in first["items"] + rest["items"]} == {one["id"] for one in items}


async def test_the_summary_is_by_destination_and_reason(console, owing) -> None:
    items = (await console.get("/api/v1/undelivered/summary?late=0s"))["items"]
    said = {one["destination"]: (one["fault"], one["reason"], one["state"], one["count"]) for one in items}
    assert said == {
        "shop/orders/billing": ("destination", "status_500", "exhausted", 2),
        "shop/other/crm": ("ours", "no_deliverer", "pending", 1),
    }
    (one,) = (await console.get("/api/v1/undelivered/summary?endpoint=shop/orders"))["items"]
    assert (one["text"], one["more"], one["removed"]) == ("it answered 500: it failed", False, False)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("fault=mine", "parameter_invalid"),
        ("reason=Status 500", "parameter_invalid"),
        ("reason=dns,conect_refused", "parameter_invalid"),
        ("late=soon", "parameter_invalid"),
        ("late=20000000h", "parameter_invalid"),
        ("destination=billing", "parameter_invalid"),
        ("destination=shop/orders/nobody", "unknown_destination"),
        ("destination=shop/nobody/billing", "unknown_destination"),
        ("destination=shop/orders/billing&endpoint=shop/orders", "parameter_invalid"),
        ("endpoint=shop/nobody", "unknown_endpoint"),
    ],
)
async def test_a_wrong_question_is_refused_in_words(console, query: str, code: str) -> None:
    assert (await console.problem(f"/api/v1/undelivered?{query}"))[1] == code


async def test_a_late_of_centuries_is_refused_and_a_since_of_centuries_is_all_there_is(console, owing) -> None:
    status, code, *_ = await console.problem("/api/v1/undelivered/summary?late=87601h")
    assert (status, code) == (400, "parameter_invalid")
    assert (await console.get("/api/v1/undelivered?late=87600h"))["items"] is not None
    everything = await console.get("/api/v1/undelivered?late=0s")
    for since in ("20000000h", "0001-01-01T00:00:00%2B14:00"):
        assert (await console.get(f"/api/v1/undelivered?late=0s&since={since}"))["items"] == everything["items"]


async def test_the_command_sums_up_and_lists_each_when_asked(console, owing, kapsel) -> None:
    ran = await kapsel("get", "undelivered", "--late", "0s", "--server", console.url)
    assert (ran.code, ran.err) == (0, "")
    heading, *rows = ran.out.splitlines()
    assert heading.split() == ["DESTINATION", "FAULT", "REASON", "STATE", "COUNT", "OLDEST", "MEANING"]
    assert sorted(row.split()[:5] for row in rows) == [
        ["shop/orders/billing", "destination", "status_500", "exhausted", "2"],
        ["shop/other/crm", "ours", "no_deliverer", "pending", "1"],
    ]
    ran = await kapsel("get", "undelivered", "--fault", "destination", "-o", "json", "--server", console.url)
    assert {one["state"] for one in json.loads(ran.out)["items"]} == {"exhausted"}
    ran = await kapsel("get", "undelivered", "--each", "--late", "0s", "--server", console.url)
    assert len(ran.out.splitlines()) == 4


async def test_a_suspension_is_no_fault_of_ours_however_it_is_asked_for(console, owing, kapsel) -> None:
    await owing.apply(destinations=(owing.billing, replace(owing.crm, suspend=True)))
    for asked in ("--each", "--fault configuration", "--reason destination_suspended"):
        ran = await kapsel("get", "undelivered", *asked.split(), "--late", "0s", "--server", console.url)
        (row,) = (row.split() for row in ran.out.splitlines() if "crm" in row)
        assert " configuration destination_suspended pending " in " ".join(row), asked
    ran = await kapsel("get", "undelivered", "--fault", "ours", "--late", "0s", "--server", console.url)
    assert ran.out == ""


@pytest.mark.parametrize(("asked", "allowed"), [("--late", "such as 1m"), ("--fault", "one or more of destination")])
async def test_a_wrong_value_is_answered_with_those_that_are_allowed(console, kapsel, asked: str, allowed: str) -> None:
    ran = await kapsel("get", "undelivered", asked, "banana", "--server", console.url)
    assert (ran.code, allowed in ran.err, "lists what it has" in ran.err) == (1, True, False)
    assert "the --help of each command explains its options" in ran.err


async def test_nothing_undelivered_is_said_so(console, kapsel) -> None:
    ran = await kapsel("get", "undelivered", "--server", console.url)
    assert (ran.code, ran.out) == (0, "")
    assert "Everything was delivered" in ran.err


def test_only_those_that_are_worst_off_have_a_series_and_only_as_long_as_they_are() -> None:
    metrics = DelivererMetrics(registry := CollectorRegistry())
    found = [
        Oldest(destination=f"shop/orders/{number}", fault="destination", created_at=NOW - timedelta(days=1))
        for number in range(MOST + 5)
    ]
    show(metrics, found, NOW)
    series = list(metrics.undelivered.collect()[0].samples)
    assert len(series) == MOST
    show(metrics, [*found, Oldest(destination="shop/orders/late", fault="ours", created_at=NOW)], NOW)
    assert len(list(metrics.undelivered.collect()[0].samples)) == MOST + 1
    labels = {"destination": "shop/orders/0", "fault": "destination"}
    assert registry.get_sample_value("delivery_undelivered_oldest_age_seconds", labels) == 86_400
    show(metrics, [], NOW)
    assert registry.get_sample_value("delivery_undelivered_oldest_age_seconds", labels) is None

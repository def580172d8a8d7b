"""Differences between configurations, in the words of the manifests."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from kapsel_cli.announce import ingest_urls, reachable, summary
from kapsel_cli.configure import Change, changes
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, LogRow, Verification

ENDPOINT = EndpointRow(id=UUID(int=1), namespace="shop", name="orders", verification=Verification(scheme="none"))
DESTINATION = DestinationRow(id=UUID(int=2), endpoint_id=ENDPOINT.id, name="billing", url="https://example.com")
BEFORE = Configuration(generation=1, endpoints=(ENDPOINT,), destinations=(DESTINATION,))


def said(before: Configuration, after: Configuration) -> list[str]:
    return [str(change) for change in changes(before, after)]


def test_nothing_changed_is_nothing_said() -> None:
    assert said(BEFORE, replace(BEFORE, generation=2)) == []


def test_what_came_changed_and_went_is_named() -> None:
    other = replace(ENDPOINT, id=UUID(int=3), name="payments")
    after = Configuration(
        generation=2,
        endpoints=(ENDPOINT, other),
        destinations=(replace(DESTINATION, timeout=timedelta(seconds=1)),),
        log=LogRow(namespace="shop", name="log", origin="log.example.com", key_name="k"),
    )
    assert said(BEFORE, after) == [
        "log log.example.com added",
        "endpoint shop/payments added",
        "destination shop/orders → billing changed",
    ]
    assert said(after, BEFORE)[0] == "log log.example.com removed"


def test_a_first_configuration_has_a_relay_that_is_new() -> None:
    assert said(Configuration(), Configuration(generation=1)) == ["relay default/main added"]


def test_many_changes_become_counts() -> None:
    many = [Change("endpoint", str(number), "added") for number in range(9)] + [Change("key", "k", "removed")]
    assert summary(many) == "9 endpoints added, 1 key removed"
    assert summary(many[:2]) == "endpoint 0 added, endpoint 1 added"


def test_a_destination_that_is_removed_is_said_to_cost_what_waited_for_it() -> None:
    gone = Change("destination", "shop/orders → billing", "removed")
    cost = "; what waited for a destination that was removed is cancelled"
    assert summary([gone]) == f"destination shop/orders → billing removed{cost}"
    assert summary([gone] * 9) == f"9 destinations removed{cost}"
    assert "cancelled" not in summary([Change("destination", "shop/orders → billing", "changed")])


def test_ingest_urls_are_those_that_answer() -> None:
    base = "http://127.0.0.1:8080"
    assert ingest_urls(ENDPOINT, base) == [f"{base}/ingest/shop/orders", f"{base}/ingest/{ENDPOINT.id}"]
    assert ingest_urls(replace(ENDPOINT, paths=("Id",)), base) == [f"{base}/ingest/{ENDPOINT.id}"]


def test_a_wildcard_address_is_shown_as_one_that_can_be_opened() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "::", "::1", "kapsel.test")] == [
        "127.0.0.1",
        "[::1]",
        "[::1]",
        "kapsel.test",
    ]

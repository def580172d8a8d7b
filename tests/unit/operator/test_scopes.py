"""Every resource has one Relay that speaks for it, or a reason why there is none."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kapsel_operator.scopes import Scopes, divide
from kapsel_operator.store import Declared, declared
from kapsel_resources.kinds.core import Namespace
from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import parse

ENDPOINT: dict[str, Any] = {"verification": {"none": {}}, "destinations": []}


def one(kind: str, name: str, spec: dict[str, Any], namespace: str = "shop", **annotations: str) -> Declared:
    named = {"name": name, "namespace": namespace, "uid": f"{kind}/{name}", "resourceVersion": "1"}
    metadata = {**named, "annotations": {f"kapsel.dev/{key}": value for key, value in annotations.items()}}
    return declared({"apiVersion": "kapsel.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})


def namespace(name: str, **labels: str) -> Namespace:
    parsed = parse({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    assert isinstance(parsed, Namespace)
    return parsed


def reasons(scopes: Scopes) -> dict[str, str]:
    return {orphan.identity.name: orphan.reason for orphan in scopes.orphans}


MAIN = Identity("Relay", "shop", "main")


def test_without_a_relay_everything_says_so() -> None:
    scopes = divide([one("WebhookEndpoint", "orders", ENDPOINT), one("RetryPolicy", "patient", {})], [])
    assert reasons(scopes) == {"orders": "RelayNotFound", "patient": "RelayNotFound"}


def test_what_the_api_server_took_and_the_models_refuse_is_told_with_the_field() -> None:
    scopes = divide([one("Relay", "main", {}), one("WebhookEndpoint", "orders", {**ENDPOINT, "maxBodyBytes": 0})], [])
    (orphan,) = scopes.orphans
    assert orphan.reason == "InvalidManifest"
    assert "spec.maxBodyBytes" in orphan.message
    assert orphan.identity in scopes.relays[MAIN].broken  # and keeps the rows that it had


def test_an_endpoint_of_a_relay_that_cannot_be_read_waits_for_that_relay() -> None:
    broken = one("Relay", "main", {"retention": "1s"})
    scopes = divide([broken, one("WebhookEndpoint", "orders", ENDPOINT)], [])
    assert reasons(scopes) == {"main": "InvalidManifest", "orders": "RelayNotReadable"}


def test_a_namespace_that_no_relay_allows_is_told_so_on_the_endpoint() -> None:
    far = one("WebhookEndpoint", "orders", {**ENDPOINT, "relayRef": {"name": "main", "namespace": "shop"}}, "far")
    scopes = divide([one("Relay", "main", {}), far], [namespace("far")])
    assert reasons(scopes) == {"orders": "NotAllowed"}
    allowing = one("Relay", "main", {"allowedNamespaces": {"from": "All"}})
    assert far.identity in divide([allowing, far], []).relays[MAIN].speaks_for


def test_a_key_that_two_relays_could_speak_for_is_spoken_for_by_one() -> None:
    key = one("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    scopes = divide([one("Relay", "a", {}), one("Relay", "b", {}), key], [])
    assert [key.identity in scope.speaks_for for _, scope in sorted(scopes.relays.items())] == [True, False]


def test_a_key_is_none_of_a_relays_business_that_lets_everybody_in_and_that_nobody_there_uses() -> None:
    everybody = {"allowedNamespaces": {"from": "All"}}
    nosy, main = one("Relay", "main", everybody, "aaa"), one("Relay", "main", everybody, "platform")
    key = one("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    orders = one("WebhookEndpoint", "orders", {**ENDPOINT, "relayRef": {"name": "main", "namespace": "platform"}})

    def speakers(*resources: Declared) -> list[str]:
        scopes = divide(resources, [])
        return [relay.namespace for relay, scope in scopes.relays.items() if key.identity in scope.speaks_for]

    assert speakers(nosy, main, key, orders) == ["platform"]
    assert speakers(main, key) == ["platform"]  # there is no other that could be meant
    assert speakers(nosy, main, key) == []
    assert reasons(divide([nosy, main, key], [])) == {"out": "RelayAmbiguous"}


def test_a_paused_endpoint_is_spoken_for_and_keeps_its_rows() -> None:
    paused = one("WebhookEndpoint", "orders", ENDPOINT, reconcile="disabled")
    scope = divide([one("Relay", "main", {}), paused], []).relays[MAIN]
    assert paused.identity in scope.speaks_for
    assert paused.identity in scope.broken
    assert paused.resource not in scope.resources


def test_a_relay_needs_a_log_unless_one_is_there_or_may_be_meant() -> None:
    relay = one("Relay", "main", {})
    assert divide([relay], []).relays[MAIN].needs_log
    assert not divide([relay, one("AttestationLog", "ours", {})], []).relays[MAIN].needs_log
    assert not divide([relay, one("AttestationLog", "ours", {"origin": ""})], []).relays[MAIN].needs_log


def test_a_log_that_was_made_gives_way_to_one_that_is_declared_and_is_kept() -> None:
    made, ours = one("AttestationLog", "main", {}, default="true"), one("AttestationLog", "ours", {})
    scope = divide([one("Relay", "main", {}), made, ours], []).relays[MAIN]
    assert scope.superseded == {made.identity}
    assert made.identity in scope.speaks_for
    assert made.resource not in scope.resources
    assert divide([one("Relay", "main", {}), made], []).relays[MAIN].superseded == frozenset()


_NAMESPACES = st.sampled_from(["shop", "far"])
_RELAYS = st.builds(
    lambda name, where, allowed: one("Relay", name, {"allowedNamespaces": {"from": allowed}}, where),
    st.sampled_from(["a", "b"]),
    _NAMESPACES,
    st.sampled_from(["Same", "All"]),
)
_OTHERS = st.builds(
    lambda kind, name, where: one(kind, name, ENDPOINT if kind == "WebhookEndpoint" else {}, where),
    st.sampled_from(["WebhookEndpoint", "RetryPolicy", "AttestationLog"]),
    st.sampled_from(["x", "y"]),
    _NAMESPACES,
)


@given(st.lists(st.one_of(_RELAYS, _OTHERS), unique_by=lambda made: made.identity, max_size=8))
def test_each_resource_is_spoken_for_exactly_once(resources: list[Declared]) -> None:
    scopes = divide(resources, [])
    told = [orphan.identity for orphan in scopes.orphans]
    for scope in scopes.relays.values():
        told += scope.speaks_for
    assert sorted(told) == sorted(made.identity for made in resources)

"""What the smoke test declares, and what it reads out of what is there."""

import pytest

from kapsel_cli import smoke_objects
from kapsel_cli.smoke_objects import Scene, host_range, reaches, readiness
from kapsel_resources.manifests import parse

SCENE = Scene(
    namespace="shop",
    name="kapsel-smoke",
    relay="kapsel-smoke",
    destination="http://10.244.0.7:8080/smoke",
    owner=("kapsel-smoke", "9c8f0a2e-2f6c-4e5c-9f57-2f0f8f0d7b11"),
)


@pytest.mark.parametrize("storage_class", [None, "fast"])
def test_what_it_declares_is_what_the_definitions_allow(storage_class: str | None) -> None:
    declared = smoke_objects.relay(SCENE, "10.244.0.7", storage_class) | smoke_objects.endpoint(SCENE, "whsec_c2VjcmV0")
    assert set(declared) == {"relays", "attestationlogs", "secrets", "signingkeys", "webhookendpoints"}
    for manifest in declared.values():
        assert not isinstance(parse(dict(manifest)), list)


def test_everything_it_declares_goes_with_its_pod() -> None:
    declared = smoke_objects.relay(SCENE, "10.244.0.7", None) | smoke_objects.endpoint(SCENE, "whsec_c2VjcmV0")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "kapsel-smoke", "uid": "9c8f0a2e-2f6c-4e5c-9f57-2f0f8f0d7b11"}
    assert all(manifest["metadata"]["ownerReferences"] == [owner] for manifest in declared.values())


def test_its_own_relay_delivers_to_its_own_address_and_to_no_other_private_one() -> None:
    egress = smoke_objects.relay(SCENE, "10.244.0.7", None)["relays"]["spec"]["egress"]
    assert reaches(egress, "10.244.0.7")
    assert not reaches(egress, "10.244.0.8")


def test_an_address_of_version_6_is_a_range_of_its_own_too() -> None:
    assert host_range("fd00::7") == "fd00::7/128"


@pytest.mark.parametrize(
    ("egress", "does"),
    [
        ({}, False),
        ({"allowHTTP": True}, False),
        ({"allowedCIDRs": ["10.0.0.0/8"]}, False),
        ({"allowHTTP": True, "allowedCIDRs": ["127.0.0.1/32"]}, False),
        ({"allowHTTP": True, "allowedCIDRs": ["127.0.0.1/32", "10.0.0.0/8"]}, True),
    ],
)
def test_a_relay_delivers_here_only_if_it_allows_the_address_and_plain_http(egress: object, does: bool) -> None:
    assert reaches(egress, "10.244.0.7") is does  # type: ignore[arg-type]


def condition(status: str, *, seen: int) -> dict[str, object]:
    ready = {"type": "Ready", "status": status, "reason": "Accepted", "message": "3 of 3"}
    return {"metadata": {"generation": 2}, "status": {"observedGeneration": seen, "conditions": [ready]}}


def test_a_resource_is_ready_when_its_newest_generation_is() -> None:
    assert readiness(condition("True", seen=2)) == (True, "Accepted: 3 of 3")
    assert readiness(condition("True", seen=1)) == (False, "Accepted: 3 of 3")
    assert readiness(condition("False", seen=2)) == (False, "Accepted: 3 of 3")
    assert readiness({"metadata": {"generation": 1}}) == (False, "")

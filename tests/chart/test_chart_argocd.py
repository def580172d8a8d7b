"""Argo CD's view of kapsel's resources: the Lua of the chart, run as Argo CD runs it, over resources as they are."""

from pathlib import Path
from typing import Any

import pytest
from chart import CHART
from lupa.lua51 import LuaRuntime

LUA = (CHART / "argocd/health.lua").read_text()
KINDS = ("Relay", "WebhookEndpoint", "RetryPolicy", "SigningKey", "AttestationLog", "Replay")
LASTING = KINDS[:-1]

Health = tuple[str, str]


def health(
    kind: str, *conditions: tuple[str, str, str], seen: int = 2, message: str = "", deleting: bool = False
) -> Health:
    """Return status and message for a resource of generation 2 with conditions (type, status, reason)."""
    metadata: dict[str, Any] = {"name": "one", "namespace": "shop", "generation": 2}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    resource: dict[str, Any] = {"apiVersion": "kapsel.dev/v1alpha1", "kind": kind, "metadata": metadata}
    if conditions:
        found = [
            {"type": name, "status": status, "reason": why, "message": message} for name, status, why in conditions
        ]
        resource["status"] = {"observedGeneration": seen, "conditions": found}
    # Argo CD opens the basic library and `table` for a health check, and nothing else.
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    lua.execute("io = nil os = nil debug = nil package = nil require = nil string = nil math = nil coroutine = nil")
    lua.globals().obj = lua.table_from(resource, recursive=True)
    answer = lua.execute(LUA)
    return answer.status, answer.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_that_nobody_has_looked_at_is_under_way(kind: str) -> None:
    assert health(kind) == ("Progressing", "No operator has looked at it yet")


@pytest.mark.parametrize("kind", LASTING)
def test_a_resource_that_is_ready_is_healthy(kind: str) -> None:
    assert health(kind, ("Ready", "True", "Accepted")) == ("Healthy", "Accepted")


@pytest.mark.parametrize("kind", LASTING)
def test_a_resource_that_is_not_ready_yet_is_under_way_with_the_reason(kind: str) -> None:
    answer = health(kind, ("Ready", "False", "Migrating"), message="The schema is brought up to date")
    assert answer == ("Progressing", "Migrating: The schema is brought up to date")
    assert health(kind, ("Ready", "Unknown", "Starting"))[0] == "Progressing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_that_only_a_person_can_mend_is_degraded_with_the_remedy(kind: str) -> None:
    conditions = (("Ready", "False", "SecretNotFound"), ("Stalled", "True", "SecretNotFound"))
    answer = health(kind, *conditions, message="spec.secretRef names no Secret: apply it")
    assert answer == ("Degraded", "SecretNotFound: spec.secretRef names no Secret: apply it")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_said_of_an_older_version_does_not_count(kind: str) -> None:
    conditions = (("Ready", "True", "Accepted"), ("Stalled", "True", "SecretNotFound"))
    assert health(kind, *conditions, seen=1) == ("Progressing", "The operator has not seen the newest version yet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_that_is_paused_is_suspended(kind: str) -> None:
    assert health(kind, ("Paused", "True", "Annotation"), ("Ready", "False", "Paused"))[0] == "Suspended"
    assert health(kind, ("Paused", "True", "Annotation"), seen=1)[0] == "Suspended"


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_that_is_being_deleted_is_under_way(kind: str) -> None:
    assert health(kind, ("Ready", "True", "Accepted"), deleting=True)[0] == "Progressing"


def test_a_destination_that_does_not_answer_makes_no_application_degraded() -> None:
    conditions = (("Ready", "True", "Accepted"), ("Delivering", "False", "CircuitOpen"))
    assert health("WebhookEndpoint", *conditions)[0] == "Healthy"


def test_a_frozen_log_is_degraded_although_its_manifest_is_in_force() -> None:
    conditions = (("Ready", "True", "Accepted"), ("LogConsistent", "False", "Frozen"))
    assert health("AttestationLog", *conditions, message="older than what was signed")[0] == "Degraded"


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ([("Complete", "False", "Running"), ("Ready", "False", "Running")], "Progressing"),
        ([("Complete", "True", "Done"), ("Ready", "True", "Done")], "Healthy"),
        ([("Failed", "True", "EndpointNotFound"), ("Complete", "False", "EndpointNotFound")], "Degraded"),
        ([("Suspended", "True", "Suspended"), ("Complete", "False", "Suspended")], "Suspended"),
        ([("Ready", "True", "Accepted")], "Progressing"),
    ],
)
def test_a_replay_is_healthy_once_it_is_complete(conditions: list[tuple[str, str, str]], status: str) -> None:
    assert health("Replay", *conditions)[0] == status


def test_the_documentation_shows_how_argo_cd_gets_it() -> None:
    text = (Path(__file__).parents[2] / "docs/install.md").read_text()
    assert "resource.customizations" in text
    assert "charts/kapsel/argocd/health.lua" in text

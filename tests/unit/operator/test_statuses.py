"""What a status must not say, and how much of it there may be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from kapsel_operator import key_secrets, relay_status, statuses
from kapsel_operator.planned import Basis, EndpointView, KeyView, Planned
from kapsel_operator.readiness import Plane
from kapsel_operator.scopes import Scope
from kapsel_operator.statuses import View
from kapsel_operator.store import Declared, declared
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.verification import Verification
from kapsel_store.healings import Healing
from kapsel_store.overview import Generations

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = UUID(int=1)
SPECS: dict[str, dict[str, Any]] = {
    "Relay": {},
    "WebhookEndpoint": {"verification": {"none": {}}, "destinations": [{"name": "one", "url": "https://example.com/"}]},
    "SigningKey": {"algorithm": "HMAC-SHA256", "source": "Secret", "secretRef": {"name": "many"}},
}


def resource(kind: str, *, generation: int = 1, observed: int | None = None, paused: bool = False) -> Declared:
    condition = {"type": "Ready", "status": "True", "reason": "Accepted", "message": ""}
    told = {} if observed is None else {"observedGeneration": observed, "conditions": [condition]}
    for one in told.get("conditions", ()):  # type: ignore[attr-defined]
        one |= {"lastTransitionTime": "2025-01-01T00:00:00Z", "observedGeneration": observed}
    annotations = {"kapsel.dev/reconcile": "disabled"} if paused else {}
    metadata = {"name": "main", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": generation}
    document = {"apiVersion": "kapsel.dev/v1alpha1", "kind": kind, "spec": SPECS[kind], "status": told}
    return declared({**document, "metadata": {**metadata, "annotations": annotations}})


def view(keys: int = 0, nameless: frozenset[Identity] = frozenset()) -> View:
    scope = Scope(resources=(), broken=frozenset(), speaks_for=frozenset(), superseded=frozenset(), needs_log=False)
    versions = tuple(
        KeyView(version=number, algorithm="HMAC-SHA256", public=None, not_before=NOW, not_after=None)
        for number in range(1, keys + 1)
    )
    planned = Planned(
        basis=Basis(scope=scope, secrets={}, url="", generation=1),
        until=NOW + timedelta(hours=1),
        told={},
        endpoints={Identity("WebhookEndpoint", "shop", "main"): EndpointView(id=ENDPOINT, paths=(), destinations=())},
        keys={("shop", "literal/main"): versions} if versions else {},
        log=None,
        generations=Generations(endpoints={ENDPOINT: 1}, keys={}),
    )
    plane = Plane(generations={"receiver": (1,), "deliverer": (1,)})
    return View(now=NOW, planned=planned, plane=plane, doing={}, url=None, nameless=nameless)


def seen(status: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Return what each condition speaks of, that of the whole status first."""
    conditions = [(one["observedGeneration"], one["type"], one["status"]) for one in status["conditions"]]
    return [(status["observedGeneration"], "", ""), *conditions]


def test_a_paused_relay_does_not_speak_of_what_was_declared_since() -> None:
    status = relay_status.paused(resource("Relay", generation=2, observed=1, paused=True), NOW)
    assert seen(status) == [(1, "", ""), (1, "Paused", "True"), (1, "Ready", "True")]
    never = relay_status.paused(resource("Relay", generation=2, paused=True), NOW)
    assert seen(never) == [(2, "", ""), (2, "Paused", "True"), (2, "Ready", "Unknown")]


def test_a_paused_endpoint_does_not_speak_of_what_was_declared_since() -> None:
    status = statuses.endpoint(resource("WebhookEndpoint", generation=2, observed=1, paused=True), view())
    assert [one for one in seen(status) if one[1] != "Delivering"] == [
        (1, "", ""),
        (1, "Paused", "True"),
        (1, "Ready", "True"),
    ]
    again = statuses.endpoint(resource("WebhookEndpoint", generation=2, observed=1), view())
    assert {generation for generation, *_ in seen(again)} == {2}


def gaps(one: Declared, found: View) -> list[tuple[str, str, str]]:
    conditions = statuses.endpoint(one, found)["conditions"]
    return [(one["status"], one["reason"], one["message"]) for one in conditions if one["type"] == "GapsHealed"]


def test_an_endpoint_that_is_healed_says_what_the_last_look_came_to(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resource("WebhookEndpoint")
    healing = {"repository": "octocat/hello", "hookId": 7, "tokenSecretRef": {"name": "token"}}
    github = {"github": {"signingKeyRef": {"name": "k"}, "gapHealing": healing}}
    spec = {"verification": github, "idempotency": {"source": "Provider"}, "destinations": []}
    monkeypatch.setitem(SPECS, "WebhookEndpoint", spec)
    healed = resource("WebhookEndpoint")
    assert gaps(plain, view()) == []
    assert gaps(healed, view())[0][:2] == ("Unknown", "NotLooked")
    for reason, status in (("Healed", "True"), ("Healing", "False"), ("TokenRefused", "False")):
        last = Healing(checked_at=NOW, reason=reason, message="said", missing=1, requested=1)
        assert gaps(healed, replace(view(), healings={ENDPOINT: last})) == [(status, reason, "said")]


@pytest.mark.parametrize(
    ("verification", "names"),
    [
        ({"gitlab": {"secretRef": {"name": "s"}}}, ["s"]),
        ({"basic": {"secretRef": {"name": "s"}}}, ["s"]),
        ({"meta": {"signingKeyRef": {"name": "k"}, "verifyTokenRef": {"name": "t"}}}, ["t"]),
        (
            {
                "github": {
                    "signingKeyRef": {"name": "k"},
                    "gapHealing": {"organization": "o", "hookId": 1, "tokenSecretRef": {"name": "api"}},
                }
            },
            ["api"],
        ),
        ({"github": {"signingKeyRef": {"name": "k"}}}, []),
        ({"none": {}}, []),
    ],
)
def test_every_secret_that_a_verification_names_is_read(verification: dict[str, Any], names: list[str]) -> None:
    found = Verification.model_validate(verification)
    assert [reference.name for reference in found.secrets] == names


def test_of_a_secret_with_very_many_keys_a_status_shows_the_newest() -> None:
    one = resource("SigningKey")
    assert isinstance(one.resource, SigningKey)
    status = statuses.signing_key(one, one.resource, view(keys=40))
    assert [row["version"] for row in status["versions"]] == list(range(9, 41))


IN_VAULT = {
    "algorithm": "Ed25519",
    "source": "Vault",
    "vault": {
        "address": "https://vault.example",
        "key": "log",
        "versions": [1],
        "tokenSecretRef": {"name": "vault-token", "key": "token"},
        "caSecretRef": {"name": "vault-ca", "key": "ca.crt"},
    },
}


def test_a_key_that_is_elsewhere_has_no_secret_and_names_what_opens_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECS, "SigningKey", IN_VAULT)
    one = resource("SigningKey")
    assert isinstance(one.resource, SigningKey)
    seen_by = view()
    row = KeyView(version=1, algorithm="Ed25519", public=None, not_before=NOW, not_after=None)
    planned = replace(seen_by.planned, keys={("shop", "external/main"): (row,)})
    status = statuses.signing_key(one, one.resource, replace(seen_by, planned=planned))
    assert [(version["version"], version["state"]) for version in status["versions"]] == [(1, "Live")]
    assert "secretName" not in status
    assert "publicKey" not in status
    assert one.resource.spec.secret_names() == {"vault-token", "vault-ca"}


def test_a_key_whose_secret_has_a_name_that_is_taken_says_so_and_what_to_do() -> None:
    one = resource("WebhookEndpoint")
    status = statuses.endpoint(one, view(nameless=frozenset({one.identity})))
    (stalled,) = (said for said in status["conditions"] if said["type"] == "Stalled")
    assert stalled["reason"] == "NameTaken"
    assert "Secret shop/main-signing" in stalled["message"]
    assert "allowed:" in stalled["message"]


def test_a_key_whose_secret_the_api_server_refuses_says_so_in_its_words() -> None:
    one = resource("SigningKey")
    assert isinstance(one.resource, SigningKey)
    seen_by = replace(view(), refusals={one.identity: "403: exceeded quota"})
    status = statuses.signing_key(one, one.resource, seen_by)
    (stalled,) = (said for said in status["conditions"] if said["type"] == "Stalled")
    assert stalled["reason"] == "RequestRefused"
    assert "exceeded quota" in stalled["message"]


def test_a_secret_is_that_of_a_key_by_its_owner_and_without_one_by_its_labels() -> None:
    key = Identity("SigningKey", "shop", "main-sealing")
    made = key_secrets.manifest(resource("SigningKey"), ())
    assert not key_secrets.is_of(made, key)
    assert key_secrets.is_of(made, Identity("SigningKey", "shop", "main"))
    del made["metadata"]["ownerReferences"]  # as a backup brings it back
    assert key_secrets.is_of(made, key)
    made["metadata"]["labels"]["app.kubernetes.io/component"] = "sealing-key"
    assert not key_secrets.is_of(made, key)
    assert not key_secrets.is_of({"metadata": {"name": "main-sealing-key"}}, key)

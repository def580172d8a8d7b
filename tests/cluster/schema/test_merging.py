"""How the API server merges what several people apply, and what becomes of objects that are older than a rule."""

from copy import deepcopy
from typing import Any

import pytest
from kubernetes.aio import client as kubernetes_api
from onenode.control_plane import Cluster
from schema.requests import APPLY, apply, complaints, path, send
from schema.samples import resource
from schema.table import definitions

pytestmark = pytest.mark.usefixtures("crds")

GROUP = "ratcheting.kapsel.dev"


def _destination(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "url": f"https://{name}.example.com", **more}


async def test_two_teams_each_keep_their_destination_of_one_endpoint(
    api: kubernetes_api.ApiClient, namespace: str
) -> None:
    mine = resource("WebhookEndpoint", "orders", destinations=[_destination("billing")])
    theirs = resource("WebhookEndpoint", "orders", destinations=[_destination("audit")])
    del theirs["spec"]["verification"], theirs["spec"]["relayRef"]
    assert complaints(await apply(api, namespace, mine, manager="billing")) == []
    assert complaints(await apply(api, namespace, theirs, manager="audit")) == []

    mine["spec"]["destinations"] = [_destination("billing", timeout="5s")]
    kept = await apply(api, namespace, mine, manager="billing")

    assert kept["spec"]["destinations"] == [_destination("billing", timeout="5s"), _destination("audit")]


async def test_headers_are_merged_by_name(api: kubernetes_api.ApiClient, namespace: str) -> None:
    def endpoint(header: str) -> dict[str, Any]:
        destination = _destination("billing", headers=[{"name": header, "value": "x"}])
        return resource("WebhookEndpoint", "orders", destinations=[destination])

    await apply(api, namespace, endpoint("X-One"), manager="one")
    kept = await apply(api, namespace, endpoint("X-Two"), manager="two")

    assert [header["name"] for header in kept["spec"]["destinations"][0]["headers"]] == ["X-One", "X-Two"]


async def test_who_changes_the_member_of_a_union_changes_all_of_it(
    api: kubernetes_api.ApiClient, namespace: str
) -> None:
    before = resource("WebhookEndpoint", "orders", verification={"github": {"signingKeyRef": {"name": "k"}}})
    after = resource("WebhookEndpoint", "orders", verification={"shopify": {"signingKeyRef": {"name": "k"}}})
    assert complaints(await apply(api, namespace, before, manager="one")) == []

    kept = await apply(api, namespace, after, manager="two")

    assert kept["spec"]["verification"] == {"shopify": {"signingKeyRef": {"name": "k"}}}


async def test_what_another_owns_is_a_conflict_that_names_them(api: kubernetes_api.ApiClient, namespace: str) -> None:
    await apply(api, namespace, resource("RetryPolicy", "patient", maxAttempts=3), manager="platform")

    answer = await send(
        api,
        "PATCH",
        path("RetryPolicy", namespace, "patient"),
        resource("RetryPolicy", "patient", maxAttempts=4),
        content=APPLY,
        fieldManager="team",
    )

    assert answer["code"] == 409
    assert '"platform"' in answer["message"]
    assert ".spec.maxAttempts" in answer["message"]


async def test_an_object_older_than_a_rule_can_be_changed_elsewhere(
    api: kubernetes_api.ApiClient, control_plane: Cluster, namespace: str
) -> None:
    """A stricter schema comes with an upgrade: what it would refuse today must not be stuck for it."""
    strict = _in_another_group("SigningKey")
    loose = deepcopy(strict)
    spec = _spec(loose)
    del spec["x-kubernetes-validations"], spec["properties"]["algorithm"]["enum"]
    _install(control_plane, loose)
    old = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "SigningKey",
        "metadata": {"name": "old"},
        "spec": {"algorithm": "RSA", "source": "Generate"},
    }
    where = path("SigningKey", namespace, "old").replace("kapsel.dev", GROUP, 1)
    query = {"content": APPLY, "fieldManager": "test", "force": "true"}
    assert complaints(await send(api, "PATCH", where, old, **query)) == []
    _install(control_plane, strict)

    rotated = deepcopy(old)
    rotated["spec"]["rotation"] = {"period": "24h", "overlap": "1h"}
    wrong = deepcopy(old)
    wrong["spec"]["algorithm"] = "DSA"

    assert complaints(await send(api, "PATCH", where, rotated, **query)) == []
    assert [field for field, _ in complaints(await send(api, "PATCH", where, wrong, **query))][:1] == ["spec.algorithm"]


def _in_another_group(kind: str) -> dict[str, Any]:
    """Return a definition of ours under another group, so that no other test meets it."""
    (found,) = (deepcopy(one) for one in definitions() if one["spec"]["names"]["kind"] == kind)
    found["metadata"]["name"] = f"{found['spec']['names']['plural']}.{GROUP}"
    found["spec"]["group"] = GROUP
    del found["spec"]["names"]["shortNames"], found["spec"]["names"]["categories"]
    return found


def _spec(definition: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def _install(control_plane: Cluster, definition: dict[str, Any]) -> None:
    control_plane.apply(definition)
    control_plane.kubectl("wait", "--for=condition=Established", f"crd/{definition['metadata']['name']}")

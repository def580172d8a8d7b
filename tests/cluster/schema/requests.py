"""Requests to the API server that give a manifest as it was written, and answers that tell refusals apart."""

import json
import re
from typing import Any

from kubernetes.aio import client as kubernetes_api

from kapsel_resources.crd import NAMES
from kapsel_resources.kinds.model import GROUP_VERSION

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
YAML = "application/yaml"


def path(kind: str, namespace: str, *parts: str) -> str:
    """Return the path of a kind in a namespace, or of what is below it."""
    return "/".join([f"/apis/{GROUP_VERSION}/namespaces/{namespace}/{NAMES[kind].plural}", *parts])


async def send(
    api: kubernetes_api.ApiClient,
    method: str,
    path: str,
    body: bytes | dict[str, Any] | None = None,
    *,
    content: str = YAML,
    **query: str,
) -> dict[str, Any]:
    """Send a request and return the answer, a Status if it is a refusal. Bytes go out as they are, a dict as JSON."""
    if body is not None:
        query |= {"fieldValidation": "Strict"}
    method, url, headers, *_ = await api.param_serialize(
        method,
        path,
        query_params=list(query.items()),
        header_params={"Content-Type": content, "Accept": "application/json"},
        auth_settings=["BearerToken"],
    )
    response = await api.rest_client.request(method, url, headers=headers, body=body)
    answer: dict[str, Any] = json.loads(await response.read())
    return answer


async def create(api: kubernetes_api.ApiClient, namespace: str, kind: str, manifest: bytes) -> dict[str, Any]:
    """Try to create a resource from the text of its manifest, without keeping it."""
    return await send(api, "POST", path(kind, namespace), manifest, dryRun="All")


async def apply(api: kubernetes_api.ApiClient, namespace: str, resource: dict[str, Any], manager: str = "test") -> Any:
    """Apply a resource, server-side; with a status, through the status as well."""
    where = path(resource["kind"], namespace, resource["metadata"]["name"])
    query = {"fieldManager": manager, "force": "true"}
    answer = await send(
        api, "PATCH", where, {key: part for key, part in resource.items() if key != "status"}, content=APPLY, **query
    )
    if "status" in resource and not complaints(answer):
        status = {key: part for key, part in resource.items() if key != "spec"}
        answer = await send(api, "PATCH", f"{where}/status", status, content=APPLY, **query)
    return answer


def complaints(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the fields that a refusal blames, and what it says of each; nothing for an object."""
    if answer["kind"] != "Status" or answer["status"] == "Success":
        return []
    unknown = re.findall(r'(unknown|duplicate) field "([^"]+)"', answer["message"])
    causes = answer.get("details", {}).get("causes", ())
    said = [(cause["field"], cause["message"]) for cause in causes if cause.get("field", "<nil>") != "<nil>"]
    return said or [(field, f"{what} field") for what, field in unknown] or [("", answer["message"])]

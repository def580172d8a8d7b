"""The API server: reads by name, server-side applies, and errors as this package means them.

Everything that the operator asks or tells the API server goes through here, besides the watches, which are kopf's.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from kapsel_operator.apis import BY_KIND, Api
from kapsel_operator.errors import ApiError
from kapsel_operator.manifests.names import MANAGER
from kapsel_operator.metrics import Metrics

TIMEOUT: Final = 15.0  # seconds for one request
PAGE: Final = 500
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Object = dict[str, Any]


async def connect(metrics: Metrics) -> "Cluster":
    """Return a client with the credentials of the pod, or of KUBECONFIG where there is no pod."""
    configuration = kubernetes_client.Configuration()
    try:
        kubernetes_config.load_incluster_config(client_configuration=configuration)
    except kubernetes_config.ConfigException:
        await kubernetes_config.load_kube_config(client_configuration=configuration)
    return Cluster(kubernetes_client.ApiClient(configuration), metrics)


class Cluster:
    """Requests to one API server; none is retried here, each has a deadline."""

    def __init__(self, client: kubernetes_client.ApiClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def get(self, api: Api, namespace: str, name: str) -> Object | None:
        """Return an object, None if there is none, or if the cluster does not know its kind."""
        return await self._find("GET", api.path(namespace, name))

    async def serves(self, group: str) -> bool:
        """Return whether the cluster knows an API group."""
        return await self._find("GET", f"/apis/{group}") is not None

    async def knows(self, apis: Iterable[Api]) -> bool:
        """Return whether the cluster serves all of some kinds of one group and version."""
        wanted = list(apis)
        found = await self._find("GET", f"/apis/{wanted[0].api_version}") or {"resources": ()}
        return {api.plural for api in wanted} <= {one["name"] for one in found["resources"]}

    async def list_all(self, api: Api, namespace: str | None = None) -> list[Object]:
        """Return all objects of a kind."""
        return [item async for item in self._items(api, namespace, {}, "application/json")]

    async def list_metadata(self, api: Api, namespace: str | None, selector: str | None) -> list[Object]:
        """Return the metadata of all objects of a kind, or of those that a label selector picks."""
        query = {"labelSelector": selector} if selector else {}
        return [item async for item in self._items(api, namespace, query, _METADATA)]

    async def count(self, api: Api, namespace: str | None) -> int:
        """Return how many objects of a kind there are, without reading them."""
        found = await self._request("GET", api.path(namespace), {"limit": "1"}, accept=_METADATA)
        # The API server writes an empty list of metadata as null.
        return len(found["items"] or ()) + int(found["metadata"].get("remainingItemCount") or 0)

    async def apply(self, manifest: Mapping[str, Any], *, manager: str = MANAGER) -> Object:
        """Make the fields of an object what the manifest says, whoever set them before, and create it if need be."""
        api, metadata = BY_KIND[manifest["apiVersion"], manifest["kind"]], manifest["metadata"]
        path = api.path(metadata.get("namespace"), metadata["name"])
        return await self._apply(path, manifest, manager)

    async def apply_status(self, api: Api, namespace: str, name: str, status: Mapping[str, Any]) -> Object | None:
        """Make the fields of a status what they should be; None if the object is gone."""
        body = {
            "apiVersion": api.api_version,
            "kind": api.kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }
        try:
            return await self._apply(api.path(namespace, name, "status"), body, MANAGER)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, api: Api, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete an object, if it is still the one with that uid, and what it owns."""
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        self._metrics.write("delete", api.kind)
        await self._find("DELETE", api.path(namespace, name), body)

    async def create(self, api: Api, namespace: str, body: Mapping[str, Any]) -> Object:
        """Create an object."""
        self._metrics.write("create", api.kind)
        return await self._request("POST", api.path(namespace), body=body)

    async def replace(self, api: Api, namespace: str, name: str, body: Mapping[str, Any]) -> Object:
        """Replace an object, if it still is at the version in its metadata."""
        self._metrics.write("update", api.kind)
        return await self._request("PUT", api.path(namespace, name), body=body)

    async def _apply(self, path: str, body: Mapping[str, Any], manager: str) -> Object:
        self._metrics.write("apply", str(body["kind"]))
        query = {"fieldManager": manager, "force": "true"}
        return await self._request("PATCH", path, query, body=body, content_type="application/apply-patch+yaml")

    async def _items(self, api: Api, namespace: str | None, query: Mapping[str, str], accept: str) -> Any:
        continuation = ""
        while True:
            page = {**query, "limit": str(PAGE), **({"continue": continuation} if continuation else {})}
            found = await self._request("GET", api.path(namespace), page, accept=accept)
            for item in found["items"] or ():
                yield item
            continuation = found["metadata"].get("continue", "")
            if not continuation:
                return

    async def _find(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Object | None:
        try:
            return await self._request(method, path, body=body)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        configuration = self._client.configuration
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": MANAGER}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._client.rest_client.request(method, url, headers=headers, body=body)
                data = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(f"{method} {path}", 0, str(error) or type(error).__name__) from error
        if not 200 <= response.status <= 299:
            raise ApiError(f"{method} {path}", response.status, _message(data))
        try:
            found: Object = json.loads(data)
        except ValueError as error:
            raise ApiError(f"{method} {path}", 0, "the answer is not JSON") from error
        return found


def _message(data: bytes) -> str:
    """Return what a refusal says, be it a Status object or, from a proxy in between, anything else."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, TypeError, KeyError):
        return data[:200].decode(errors="replace").strip()

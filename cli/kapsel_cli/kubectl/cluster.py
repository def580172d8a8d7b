"""The API server, asked as the person's kubeconfig says: objects as JSON, and refusals as one sentence and a next step.

Called by everything in this package. The kubernetes package reads the kubeconfig, with its certificates, tokens and
login programs; requests are made here, since it has no way to add a header to what goes through the service proxy.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from kapsel_cli.errors import CliError, UnreachableError
from kapsel_cli.kubectl.errors import ForbiddenError
from kapsel_cli.transport import MOST_BYTES, Answer

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

GROUP: Final = "kapsel.dev"
VERSION: Final = "v1alpha1"
TIMEOUT: Final = 20.0  # seconds; more than the console's own
PAGE: Final = 500

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which cluster, and as whom: the options of every command."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    impersonate: str | None = None


class Cluster:
    """One API server."""

    def __init__(self, access: Access) -> None:
        from kubernetes.client.rest import RESTClientObject  # slow to import, and of no use to --help

        self._configuration, of_context = _configuration(access)
        self._pool = RESTClientObject(self._configuration).pool_manager
        self._impersonate = access.impersonate
        self.namespace = access.namespace or of_context or "default"
        self.server = str(self._configuration.host).rstrip("/")

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Return the answer, whatever its status; raise UnreachableError if there is none."""
        from urllib3.exceptions import HTTPError

        sent = {"Accept": "application/json", "User-Agent": "kubectl-kapsel", **self._who(), **(headers or {})}
        try:
            response = self._pool.request(
                method,
                self.server + target,
                headers=sent,
                body=body,
                timeout=TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            return self._read(response)
        except (HTTPError, OSError) as error:
            raise UnreachableError(
                f"cannot reach the API server {self.server}: {_reason(error)}",
                "Check it with `kubectl cluster-info`, and --context",
            ) from error

    def get(self, target: str) -> Any:
        """Return an object."""
        return self._good(self.exchange("GET", target))

    def find(self, target: str) -> Any | None:
        """Return an object, None if there is none."""
        answer = self.exchange("GET", target)
        return None if answer.status == 404 else self._good(answer)

    def items(self, target: str) -> list[Any]:
        """Return all objects of a list, page after page."""
        found: list[Any] = []
        query = {"limit": str(PAGE)}
        while True:
            page = self.get(f"{target}?{urlencode(query)}")
            found += page["items"] or ()
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return found

    def create(self, target: str, value: Object) -> Any:
        """Make an object and return it as it was stored."""
        headers = {"Content-Type": "application/json"}
        return self._good(self.exchange("POST", target, headers, json.dumps(value).encode()))

    def refusal(self, answer: Answer) -> CliError:
        """Return what the API server refuses as one sentence and a next step."""
        status = answer.status
        message = message_of(answer) or f"HTTP status {status}"
        if status == 401:
            return CliError(
                f"the API server {self.server} does not accept your login: {message}",
                "Log in again, and check with `kubectl auth whoami`",
            )
        if status == 403:
            return ForbiddenError(
                f"you may not do this: {message}",
                "Ask whoever gives rights in this namespace for the role view, edit or admin",
            )
        if status == 404 and not _is_about_object(answer):
            return CliError(
                f"this cluster does not know {GROUP}/{VERSION}",
                "Install kapsel with its Helm chart, or check --context",
            )
        return CliError(f"the API server says: {message}", "See the object with `kubectl describe`")

    def _good(self, answer: Answer) -> Any:
        if 200 <= answer.status < 300:
            return answer.json()
        raise self.refusal(answer)

    def _who(self) -> dict[str, str]:
        authorization = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if authorization is None and self._configuration.username:
            authorization = self._configuration.get_basic_auth_token()
        headers = {} if authorization is None else {"Authorization": str(authorization)}
        if self._impersonate is not None:
            headers["Impersonate-User"] = self._impersonate
        return headers

    def _read(self, response: "BaseHTTPResponse") -> Answer:
        content = response.read(MOST_BYTES + 1, decode_content=True)
        if len(content) > MOST_BYTES:
            response.close()
            raise UnreachableError(f"{self.server} sends more than was asked for", "Check --context")
        response.release_conn()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status, headers=headers, body=content)


def resources(kind: str, namespace: str | None, name: str | None = None) -> str:
    """Return the path of kapsel's resources of a plural: all, those of a namespace, or one."""
    return _path(f"/apis/{GROUP}/{VERSION}", kind, namespace, name)


def core(kind: str, namespace: str | None, name: str | None = None) -> str:
    """Return the path of resources of the core group."""
    return _path("/api/v1", kind, namespace, name)


def message_of(answer: Answer) -> str | None:
    """Return what the API server itself has to say, None if the answer is not from it."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("kind") != "Status":
        return None
    return str(value.get("message") or value.get("reason") or "no reason given").rstrip(".")


def _is_about_object(answer: Answer) -> bool:
    """Whether a 404 names what is missing; the one for a kind that is not known does not."""
    return bool((json.loads(answer.body).get("details") or {}).get("name")) if message_of(answer) else False


def _path(base: str, kind: str, namespace: str | None, name: str | None) -> str:
    within = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    return f"{base}{within}/{kind}" + ("" if name is None else f"/{quote(name, safe=':')}")


def _configuration(access: Access) -> tuple[Any, str | None]:
    """Return how to reach the cluster, and the namespace of the context."""
    from kubernetes.client import Configuration
    from kubernetes.config import kube_config
    from kubernetes.config.config_exception import ConfigException

    configuration = Configuration()
    file = None if access.kubeconfig is None else str(access.kubeconfig)
    try:
        if file is None and _is_in_pod():
            return _of_pod(configuration)
        kube_config.load_kube_config(file, access.context, configuration, persist_config=False)
        contexts, active = kube_config.list_kube_config_contexts(file)
    except (ConfigException, OSError) as error:
        raise CliError(
            f"the kubeconfig cannot be used: {str(error).rstrip('.')}",
            "Check it with `kubectl config view`, --kubeconfig and --context",
        ) from error
    chosen = next((one for one in contexts if one["name"] == access.context), active)
    return configuration, chosen["context"].get("namespace")


def _is_in_pod() -> bool:
    import os

    from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

    places = (Path(place).expanduser() for place in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if place)
    return "KUBERNETES_SERVICE_HOST" in os.environ and not any(place.exists() for place in places)


def _of_pod(configuration: Any) -> tuple[Any, str | None]:
    from kubernetes.config import incluster_config

    incluster_config.load_incluster_config(configuration)
    return configuration, Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text(encoding="ascii")


def _reason(error: Exception) -> str:
    """Return the innermost reason: what wraps it repeats the address."""
    while isinstance(cause := error.__cause__ or error.__context__ or getattr(error, "reason", None), Exception):
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

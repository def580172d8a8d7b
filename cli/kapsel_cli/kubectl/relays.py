"""Which Relay a command is about, and the way to its console through the API server.

`choose` decides without IO. People name the Relay only where a namespace has several, or uses one of another namespace.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kapsel_cli.client import Client
from kapsel_cli.errors import CliError
from kapsel_cli.kubectl.cluster import Cluster, Object, core, message_of, resources
from kapsel_cli.kubectl.errors import ForbiddenError, NoConsoleError
from kapsel_cli.kubectl.options import PROGRAM
from kapsel_cli.transport import Answer
from kapsel_operator.manifests.names import object_name


class RelayName(NamedTuple):
    """One Relay."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def find_relay(cluster: Cluster, named: str | None) -> RelayName:
    """Return the Relay that is meant."""
    if named is not None:
        namespace, _, name = named.rpartition("/")
        return RelayName(namespace or cluster.namespace, name)
    here = [_name(one) for one in cluster.items(resources("relays", cluster.namespace))]
    endpoints = [] if here else cluster.items(resources("webhookendpoints", cluster.namespace))
    return choose(cluster.namespace, here, endpoints)


def choose(namespace: str, relays: Sequence[RelayName], endpoints: Iterable[Object]) -> RelayName:
    """Return the only Relay of a namespace, or the one that its endpoints use; raise CliError if that is not clear."""
    elsewhere = {
        RelayName(reference["namespace"], reference["name"])
        for one in endpoints
        if (reference := one["spec"].get("relayRef") or {}).get("namespace")
    }
    found = sorted(set(relays) or elsewhere)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CliError(
            f"namespace {namespace} has no Relay", "Choose another with -n, or find one with `kubectl get relays -A`"
        )
    raise CliError(
        f"namespace {namespace} uses {len(found)} Relays", f"Say which one with --relay: {', '.join(map(str, found))}"
    )


class ServiceProxy:
    """The console of one Relay, through the API server."""

    program = PROGRAM

    def __init__(self, cluster: Cluster, relay: RelayName, token: str) -> None:
        self._cluster = cluster
        self._relay = relay
        self._token = token
        # http: the scheme, and the name of the port.
        self._prefix = core("services", relay.namespace, f"http:{object_name(relay.name, 'console')}:http") + "/proxy"
        self.server = f"the console of Relay {relay}"
        refresh = f"Try again in a minute: pods get a changed Secret {token_secret(relay)} only then"
        self.next_steps: Mapping[str, str] = {"token_required": refresh, "token_wrong": refresh}

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Return the answer of the console, or that of the API server if there is none."""
        sent = {"Kapsel-Token": self._token, **(headers or {})}
        return self._cluster.exchange(method, self._prefix + target, sent, body)

    def foreign(self, answer: Answer) -> CliError:
        """Return what it means that the API server and not the console answered."""
        return self._explained(answer.status, message_of(answer) or answer.body.decode(errors="replace").strip())

    def _explained(self, status: int, message: str) -> CliError:
        relay = self._relay
        if status == 401:
            return CliError(f"the API server does not accept your login: {message}", "Log in again")
        if status == 403:
            return ForbiddenError(
                f"you may not reach {self.server}: {message}",
                "Ask whoever gives rights in that namespace for the role edit, or one that allows just this",
            )
        if status == 404 and "services" in message:
            return NoConsoleError(
                f"Relay {relay} has no console: {message}",
                f"See why with `{PROGRAM} status -n {relay.namespace}`",
            )
        if status in (502, 503, 504) or "error trying to reach" in message:
            selector = f"app.kubernetes.io/instance={relay.name},app.kubernetes.io/component=console"
            return NoConsoleError(
                f"no pod of {self.server} answers: {message}",
                # They are not ready while the database is away, which the status tells.
                f"See why with `{PROGRAM} status -n {relay.namespace}`, "
                f"and look at them with `kubectl get pods -n {relay.namespace} -l {selector}`",
            )
        return NoConsoleError(
            f"{self.server} cannot be asked: HTTP status {status}, {message[:200]}",
            f"See how it is with `{PROGRAM} status -n {relay.namespace}`",
        )


def open_console(cluster: Cluster, relay: RelayName) -> Client:
    """Return the console of a Relay, with its token."""
    secret = token_secret(relay)
    found = cluster.find(core("secrets", relay.namespace, secret))
    if found is None:
        raise _no_token(cluster, relay, secret)
    token = (found.get("data") or {}).get("token")
    if not token:
        raise NoConsoleError(
            f"the Secret {relay.namespace}/{secret} has no entry token", "Delete it: the operator makes a new one"
        )
    newest = base64.b64decode(token).decode("ascii").split()[-1]
    return Client(ServiceProxy(cluster, relay, newest), namespace=cluster.namespace)


def _no_token(cluster: Cluster, relay: RelayName, secret: str) -> CliError:
    if cluster.find(resources("relays", relay.namespace, relay.name)) is None:
        return CliError(f"there is no Relay {relay}", "List them with `kubectl get relays -A`")
    return NoConsoleError(
        f"Relay {relay} has no console yet: there is no Secret {secret}",
        f"See what it waits for with `{PROGRAM} status -n {relay.namespace}`",
    )


def token_secret(relay: RelayName) -> str:
    """Return the name of the Secret that holds the console's token."""
    return object_name(relay.name, "console-token")


def _name(found: Object) -> RelayName:
    return RelayName(found["metadata"]["namespace"], found["metadata"]["name"])

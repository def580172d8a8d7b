"""What the configuration says of each destination, made ready for the tries: URL judged, keys, headers, meters.

The worker builds them anew with each generation and keeps those that did not change.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from ssl import SSLContext
from typing import Final
from uuid import UUID

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from kapsel_deliverer import acknowledging, oauth2
from kapsel_deliverer.acknowledging import Asked, Directory
from kapsel_deliverer.contexts import Contexts
from kapsel_deliverer.exchange import request_lines
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.oauth2 import Client
from kapsel_deliverer.outcome import Delivered, Outcome
from kapsel_deliverer.shapes import Shape, shape
from kapsel_deliverer.signing import Signer
from kapsel_egress.verdicts import Allowed, Denied, check_url
from kapsel_store.reasons import FAULTS, fault_of
from kapsel_store.rows import (
    Acknowledged,
    CircuitBreaker,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    OAuth2,
    RelayRow,
    is_reserved_header,
)
from kapsel_verifier.jwks import Key

USER_AGENT: Final = f"kapsel/{version('kapsel')}"
NOWHERE: Final = URL("https://denied.invalid/")
SHORTEST_SECRET: Final = 6  # bytes; a shorter one is no secret, and would be found everywhere
CONNECT_TIMEOUT: Final = 5.0  # seconds for DNS, TCP and TLS together


class Meters:
    """The metrics of one destination, looked up once."""

    def __init__(self, metrics: DelivererMetrics, endpoint: str, label: str) -> None:
        self._metrics = metrics
        self._label = label
        self._attempts = {
            name: metrics.attempts.labels(endpoint, label, name)
            for name in ("delivered", "refused", "unacknowledged", "unreachable", "timed_out", "denied", "unsent")
        }
        self._duration = metrics.duration.labels(label)
        for fault in FAULTS[1:]:
            metrics.exhausted.labels(label, fault)  # it is there from 0 on: the first one is an increase, too

    def tried(self, outcome: Outcome, duration: timedelta) -> None:
        """Count one try."""
        self._attempts[outcome.name].inc()
        self._duration.observe(duration.total_seconds())
        if not isinstance(outcome, Delivered):
            self._metrics.failures.labels(fault_of(outcome.reason), outcome.reason).inc()

    def looked(self, result: Acknowledged) -> None:
        """Count what came of looking for an acknowledgement."""
        self._metrics.acknowledgements.labels(self._label, result).inc()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What every try at one destination has in common."""

    destination: DestinationRow
    label: str  # namespace/endpoint/destination
    keys: tuple[KeyRow, ...]
    credentials: tuple[KeyRow, ...]
    relay: RelayRow
    verdict: Allowed | Denied
    signer: Signer
    head: bytes  # the beginning of each request
    request: ClientRequest  # what the pool needs to know of each request; never used if the verdict is a denial
    timeout: aiohttp.ClientTimeout
    endpoint: EndpointRow
    shape: Shape
    asked: Asked | None  # None: the destination declares no acknowledgement
    client: Client | None  # None: it wants no access token
    secrets: tuple[bytes, ...]  # what is sent and must never be stored
    is_ready: bool  # all that it names in Secrets is there
    meters: Meters


def _judged(
    destination: DestinationRow, relay: RelayRow, secrets: Mapping[str, bytes]
) -> tuple[Allowed | Denied, bytes]:
    """Return the verdict on a destination, and the beginning of its requests if it may be called."""
    verdict = check_url(destination.url, relay)
    if isinstance(verdict, Denied):
        return verdict, b""
    headers = {name: value for name, value in destination.headers if not is_reserved_header(name)}
    for name, source in destination.secret_headers:
        if source in secrets and not is_reserved_header(name):
            headers[name] = secrets[source].decode("latin-1")
    wanted = acknowledging.WANTED if destination.acknowledgement else {}
    try:
        return verdict, request_lines(verdict.url, {**headers, **wanted, "user-agent": USER_AGENT})
    except ValueError as error:
        return Denied(reason="header_invalid", detail=str(error)), b""


def _asked(destination: DestinationRow, url: URL, context: SSLContext | None) -> Asked | None:
    """Return what the destination declares of acknowledgements."""
    declared = destination.acknowledgement
    if declared is None:
        return None
    directory = None if declared.public_keys else _directory(acknowledging.directory_url(url), context)
    return Asked(
        required=declared.required,
        tolerance_s=int(declared.tolerance.total_seconds()),
        keys=tuple(Key(bytes.fromhex(text)) for text in declared.public_keys),
        directory=directory,
    )


def _directory(url: URL, context: SSLContext | None) -> Directory:
    headers = {"accept": acknowledging.DIRECTORY_TYPES, "user-agent": USER_AGENT}
    return Directory(
        url=str(url),
        head=request_lines(url, headers, "GET") + b"\r\n",
        request=_request("GET", url, context),
    )


def _request(method: str, url: URL, context: SSLContext | None) -> ClientRequest:
    """Return what the pool needs to know of a request; without a context it takes that of all."""
    return ClientRequest(method, url, loop=asyncio.get_running_loop(), ssl=True if context is None else context)


def _client(
    declared: OAuth2 | None, relay: RelayRow, secrets: Mapping[str, bytes], contexts: Contexts
) -> Client | None:
    """Return what asks for access tokens; raise as `Contexts.get` does."""
    if declared is None:
        return None
    body, authorization = oauth2.form(declared, secrets[declared.client_id_name], secrets[declared.client_secret_name])
    verdict = check_url(declared.token_url, relay)
    url = verdict.url if isinstance(verdict, Allowed) else NOWHERE
    headers = {
        "accept": "application/json",
        "content-type": "application/x-www-form-urlencoded",
        "content-length": str(len(body)),
        "user-agent": USER_AGENT,
        **({} if authorization is None else {"authorization": authorization}),
    }
    context = contexts.get(declared.tls, secrets)
    return Client(
        url=declared.token_url,
        form=body,
        authorization=authorization,
        denied=verdict if isinstance(verdict, Denied) else None,
        context=context,
        request=_request("POST", url, context),
        head=request_lines(url, headers) + b"\r\n",
    )


def _secrets(destination: DestinationRow, secrets: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Return what is sent as a secret and long enough to be told from what is not: of a header, its last word too."""
    names = [name for _, name in destination.secret_headers]
    if destination.oauth2 is not None:
        names.append(destination.oauth2.client_secret_name)
    values = [secrets[name] for name in names if name in secrets]
    words = [value.rpartition(b" ")[2] for value in values]
    return tuple(dict.fromkeys(secret for secret in (*values, *words) if len(secret) >= SHORTEST_SECRET))


class Targets:
    """The targets of the configuration in use."""

    def __init__(self, metrics: DelivererMetrics, ca_file: Path | None = None) -> None:
        self._metrics = metrics
        self._contexts = Contexts(ca_file)
        self._targets: dict[UUID, Target] = {}

    def get(self, destination_id: UUID) -> Target | None:
        """Return a target; None if the destination is gone."""
        return self._targets.get(destination_id)

    def use(self, configuration: Configuration) -> None:
        """Take over a configuration."""
        endpoints = {endpoint.id: endpoint for endpoint in configuration.endpoints}
        keys: dict[tuple[str, str], list[KeyRow]] = {}
        for key in configuration.keys:
            keys.setdefault((key.namespace, key.name), []).append(key)
        targets: dict[UUID, Target] = {}
        for destination in configuration.destinations:
            endpoint = endpoints[destination.endpoint_id]
            name = destination.key_name or f"endpoint/{endpoint.name}"
            signing_keys = tuple(keys.get((endpoint.namespace, name), ()))
            credentials = tuple(
                max(versions, key=lambda key: key.version)
                for one in destination.credential_names
                if (versions := keys.get((endpoint.namespace, one)))
            )
            known = self._targets.get(destination.id)
            if known and (known.destination, known.endpoint, known.keys, known.credentials, known.relay) == (
                destination,
                endpoint,
                signing_keys,
                credentials,
                configuration.relay,
            ):
                self._again(known)
                targets[destination.id] = known
            else:
                targets[destination.id] = self._target(
                    destination, endpoint, signing_keys, credentials, configuration.relay
                )
        self._targets = targets
        self._contexts.follow()

    def _target(
        self,
        destination: DestinationRow,
        endpoint: EndpointRow,
        keys: Sequence[KeyRow],
        credentials: tuple[KeyRow, ...],
        relay: RelayRow,
    ) -> Target:
        secrets = {key.name: key.secret for key in credentials}
        verdict, head = _judged(destination, relay, secrets)
        url = verdict.url if isinstance(verdict, Allowed) else NOWHERE
        is_ready = all(name in secrets for name in destination.credential_names)
        context = client = None
        if is_ready:
            try:
                context = self._contexts.get(destination.tls, secrets)
                client = _client(destination.oauth2, relay, secrets, self._contexts)
            except ValueError:  # the plan lets no such value pass
                is_ready = False
        total = destination.timeout.total_seconds()
        of = f"{endpoint.namespace}/{endpoint.name}"
        label = f"{of}/{destination.name}"
        return Target(
            destination=destination,
            label=label,
            keys=tuple(keys),
            credentials=credentials,
            relay=relay,
            verdict=verdict,
            signer=Signer(keys),
            head=head,
            request=_request("POST", url, context),
            timeout=aiohttp.ClientTimeout(total=total, connect=min(CONNECT_TIMEOUT, total)),
            endpoint=endpoint,
            shape=shape(destination),
            asked=_asked(destination, url, context),
            client=client,
            secrets=_secrets(destination, secrets),
            is_ready=is_ready,
            meters=Meters(self._metrics, of, label),
        )

    def _again(self, target: Target) -> None:
        """Keep the contexts of a target that did not change."""
        secrets = {key.name: key.secret for key in target.credentials}
        wanted = target.destination.oauth2
        for declared in (target.destination.tls, wanted.tls if wanted else None):
            if target.is_ready:
                self._contexts.get(declared, secrets)

    def clients(self) -> set[Client]:
        """Return who asks for access tokens."""
        return {target.client for target in self._targets.values() if target.client is not None}

    def directories(self) -> set[str]:
        """Return where destinations publish their keys."""
        directories = [target.asked.directory for target in self._targets.values() if target.asked]
        return {directory.url for directory in directories if directory}

    def breakers(self) -> dict[UUID, CircuitBreaker | None]:
        """Return the circuit breaker of each destination."""
        return {key: target.destination.policy.circuit_breaker for key, target in self._targets.items()}

    def labels(self) -> dict[UUID, str]:
        """Return the name of each destination in metrics and logs."""
        return {key: target.label for key, target in self._targets.items()}

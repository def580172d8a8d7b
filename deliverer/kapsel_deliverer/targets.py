"""What the configuration says of each destination, made ready for the tries: URL judged, keys, headers, meters.

The worker builds them anew with each generation and keeps those that did not change.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Final
from uuid import UUID

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from kapsel_deliverer import acknowledging
from kapsel_deliverer.acknowledging import Asked, Directory
from kapsel_deliverer.exchange import request_lines
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.outcome import Delivered, Outcome
from kapsel_deliverer.shaping import Shape, shape
from kapsel_deliverer.signing import Signer
from kapsel_egress.verdicts import Allowed, Denied, check_url
from kapsel_store.reasons import fault_of
from kapsel_store.rows import (
    Acknowledged,
    CircuitBreaker,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    RelayRow,
    is_reserved_header,
)
from kapsel_verifier.jwks import Key

USER_AGENT: Final = f"kapsel/{version('kapsel')}"
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
    relay: RelayRow
    verdict: Allowed | Denied
    signer: Signer
    head: bytes  # the beginning of each request
    request: ClientRequest  # what the pool needs to know of each request; never used if the verdict is a denial
    timeout: aiohttp.ClientTimeout
    endpoint: EndpointRow
    shape: Shape
    asked: Asked | None  # None: the destination declares no acknowledgement
    meters: Meters


def _judged(destination: DestinationRow, relay: RelayRow) -> tuple[Allowed | Denied, bytes]:
    """Return the verdict on a destination, and the beginning of its requests if it may be called."""
    verdict = check_url(destination.url, relay)
    if isinstance(verdict, Denied):
        return verdict, b""
    headers = {name: value for name, value in destination.headers if not is_reserved_header(name)}
    wanted = acknowledging.WANTED if destination.acknowledgement else {}
    try:
        return verdict, request_lines(verdict.url, {**headers, **wanted, "user-agent": USER_AGENT})
    except ValueError as error:
        return Denied(reason="header_invalid", detail=str(error)), b""


def _asked(destination: DestinationRow, url: URL) -> Asked | None:
    """Return what the destination declares of acknowledgements."""
    declared = destination.acknowledgement
    if declared is None:
        return None
    directory = None if declared.public_keys else _directory(acknowledging.directory_url(url))
    return Asked(
        required=declared.required,
        tolerance_s=int(declared.tolerance.total_seconds()),
        keys=tuple(Key(bytes.fromhex(text)) for text in declared.public_keys),
        directory=directory,
    )


def _directory(url: URL) -> Directory:
    headers = {"accept": acknowledging.DIRECTORY_TYPES, "user-agent": USER_AGENT}
    return Directory(
        url=str(url),
        head=request_lines(url, headers, "GET") + b"\r\n",
        request=ClientRequest("GET", url, loop=asyncio.get_running_loop()),
    )


class Targets:
    """The targets of the configuration in use."""

    def __init__(self, metrics: DelivererMetrics) -> None:
        self._metrics = metrics
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
            known = self._targets.get(destination.id)
            if known and (known.destination, known.endpoint, known.keys, known.relay) == (
                destination,
                endpoint,
                signing_keys,
                configuration.relay,
            ):
                targets[destination.id] = known
            else:
                targets[destination.id] = self._target(destination, endpoint, signing_keys, configuration.relay)
        self._targets = targets

    def _target(
        self, destination: DestinationRow, endpoint: EndpointRow, keys: Sequence[KeyRow], relay: RelayRow
    ) -> Target:
        verdict, head = _judged(destination, relay)
        url = verdict.url if isinstance(verdict, Allowed) else URL("https://denied.invalid/")
        total = destination.timeout.total_seconds()
        of = f"{endpoint.namespace}/{endpoint.name}"
        label = f"{of}/{destination.name}"
        return Target(
            destination=destination,
            label=label,
            keys=tuple(keys),
            relay=relay,
            verdict=verdict,
            signer=Signer(keys),
            head=head,
            request=ClientRequest("POST", url, loop=asyncio.get_running_loop()),
            timeout=aiohttp.ClientTimeout(total=total, connect=min(CONNECT_TIMEOUT, total)),
            endpoint=endpoint,
            shape=shape(destination),
            asked=_asked(destination, url),
            meters=Meters(self._metrics, of, label),
        )

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

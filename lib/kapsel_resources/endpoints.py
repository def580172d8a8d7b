"""The rows of one WebhookEndpoint and its destinations, or all that keeps them from being planned."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import UUID

from kapsel_egress import urls
from kapsel_egress.verdicts import Denied, DeniedReason, check_url
from kapsel_expressions.expression import Invalid, Sort, compile_source
from kapsel_resources.durations import text
from kapsel_resources.inventory import Inventory
from kapsel_resources.keys import Entropy, Keys, credential_name, form, new_id
from kapsel_resources.kinds.connection import Tls, entry_name
from kapsel_resources.kinds.model import Identity, Reference, SecretReference
from kapsel_resources.kinds.relay import RelaySpec
from kapsel_resources.kinds.retry_policy import RetryPolicy
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.verification import (
    Basic,
    Bearer,
    Discord,
    GitHub,
    Hmac,
    Meta,
    SignedUrl,
    SignedUrlWithTime,
    SignedWithTime,
    Sns,
    StandardWebhooks,
    Token,
    Unverified,
    Verification,
)
from kapsel_resources.kinds.webhook_endpoint import Destination, Transform, WebhookEndpoint
from kapsel_resources.precedence import Effective, resolve
from kapsel_resources.problems import Path, Problem, choices
from kapsel_resources.reasons import Reason
from kapsel_store import rows

_HASH_KEYS: Final[dict[rows.HashName, tuple[rows.Algorithm, ...]]] = {
    "sha1": ("HMAC-SHA256", "HMAC-SHA512"),  # no key is made for sha1 any more, so any shared secret will do
    "sha256": ("HMAC-SHA256",),
    "sha512": ("HMAC-SHA512",),
}
_MISSING: Final[dict[str, tuple[Reason, Reason]]] = {
    "SigningKey": ("SigningKeyNotFound", "SigningKeyNotReadable"),
    "RetryPolicy": ("RetryPolicyNotFound", "RetryPolicyNotReadable"),
}
DENIED: Final[dict[DeniedReason, tuple[Reason, str]]] = {
    "address_denied": ("AddressDenied", "a public address, or its range in egress.allowedCIDRs of the Relay"),
    "http_denied": ("PlainHTTP", "https, or egress.allowHTTP: true in the Relay"),
    "url_invalid": ("UrlInvalid", urls.ALLOWED),
}


@dataclass(frozen=True, slots=True)
class EndpointRows:
    """An endpoint as the data plane sees it."""

    endpoint: rows.EndpointRow
    destinations: tuple[rows.DestinationRow, ...]

    def key_names(self) -> list[tuple[str, str]]:
        """Return namespace and name of the keys that it needs."""
        verification = self.endpoint.verification
        names = {
            verification.key_name,
            verification.token_key_name,
            *(destination.key_name for destination in self.destinations),
        }
        names.update(name for destination in self.destinations for name in destination.credential_names)
        return sorted((self.endpoint.namespace, name) for name in names if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all endpoints of one plan share."""

    inventory: Inventory
    keys: Keys
    relay: RelaySpec
    egress: rows.RelayRow
    log_keys: frozenset[tuple[str, str]]  # no endpoint may use them: what signs heads must sign nothing else
    entropy: Entropy


def plan_endpoint(
    around: Surroundings, resource: WebhookEndpoint, previous: EndpointRows | None
) -> EndpointRows | list[Problem]:
    """Return the rows of an endpoint, under the ids they had before, or what is wrong with it."""
    draft = _Draft(around, resource.identity)
    verification = draft.verification(resource.spec.verification)
    resolved = [draft.destination(index, destination) for index, destination in enumerate(resource.spec.destinations)]
    if draft.problems:
        return draft.problems
    endpoint_id = previous.endpoint.id if previous else new_id(around.entropy)
    ids = {row.name: row.id for row in previous.destinations} if previous else {}
    return EndpointRows(
        _endpoint_row(resource, endpoint_id, verification, around.relay),
        tuple(
            _destination_row(
                destination, ids.get(destination.name) or new_id(around.entropy), endpoint_id, key_name, limits
            )
            for destination, (key_name, limits) in sorted(
                zip(resource.spec.destinations, resolved, strict=True), key=lambda pair: pair[0].name
            )
        ),
    )


class _Draft:
    """Resolves the references of one endpoint and collects what is wrong with them."""

    def __init__(self, around: Surroundings, resource: Identity) -> None:
        self._around = around
        self._resource = resource
        self.problems: list[Problem] = []

    def verification(self, verification: Verification) -> rows.Verification:
        scheme, member = verification.scheme, verification.member
        path: Path = ("spec", "verification", scheme)
        match member:
            case Unverified():
                return rows.Verification(scheme=scheme)
            case Basic() | Bearer():
                key_name = self._credentials(scheme, member.secret_ref, (*path, "secretRef"))
                return rows.Verification(scheme=scheme, key_name=key_name)
            case Token():
                key_name = self._credentials("bearer", member.secret_ref, (*path, "secretRef"))
                return rows.Verification(scheme=scheme, key_name=key_name)
            case Sns():
                return rows.Verification(scheme=scheme, topic_arns=tuple(sorted(set(member.topic_arns))))
            case Discord():
                keys = tuple(dict.fromkeys(key.lower() for key in member.public_keys))
                return rows.Verification(scheme=scheme, public_keys=keys, tolerance=member.tolerance)
            case StandardWebhooks():
                key_name = self._key(member.signing_key_ref, path, ("HMAC-SHA256", "Ed25519"), standard=True)
                return rows.Verification(scheme=scheme, key_name=key_name, tolerance=member.tolerance)
            case Hmac():
                return rows.Verification(
                    scheme=scheme,
                    key_name=self._key(member.signing_key_ref, path, _HASH_KEYS[member.algorithm]),
                    header=member.header,
                    prefix=member.prefix,
                    encoding=member.encoding,
                    algorithm=member.algorithm,
                    timestamp_header=member.timestamp_header,
                    tolerance=member.tolerance,
                )
        row = rows.Verification(scheme=scheme, key_name=self._key(member.signing_key_ref, path, ("HMAC-SHA256",)))
        if isinstance(member, Meta):
            token = self._credentials("bearer", member.verify_token_ref, (*path, "verifyTokenRef"))
            row = replace(row, token_key_name=token)
        if isinstance(member, GitHub) and member.gap_healing is not None:
            healing = member.gap_healing
            token = self._credentials("bearer", healing.token_secret_ref, (*path, "gapHealing", "tokenSecretRef"))
            row = replace(row, token_key_name=token, gap_healing=healing.row())
            self._callable(healing.api_url, (*path, "gapHealing", "apiURL"))
        if isinstance(member, SignedUrl):
            row = replace(row, public_url=member.public_url, trust_forwarded=member.trust_forwarded)
        if isinstance(member, SignedWithTime | SignedUrlWithTime):
            row = replace(row, tolerance=member.tolerance)
        return row

    def _credentials(self, form: str, reference: SecretReference, path: Path) -> str:
        """Return the name that passwords or tokens have in the rows; what is wrong with them is collected."""
        name = credential_name(form, reference)
        if lacking := self._around.keys.lacking(self._resource.namespace, name):
            self._refuse(path, lacking.reason, lacking.wrong, lacking.allowed)
        return name

    def destination(self, index: int, destination: Destination) -> tuple[str, Effective]:
        """Return the name of the key that signs, and the limits that hold."""
        path: Path = ("spec", "destinations", index)
        self._callable(destination.url, (*path, "url"))
        if destination.filter is not None:
            self._expression((*path, "filter"), destination.filter, "bool")
        if destination.transform is not None:
            self._transform((*path, "transform"), destination.transform)
        if destination.ordering is not None and destination.ordering.key is not None:
            self._expression((*path, "ordering", "key"), destination.ordering.key, "string")
        if destination.oauth2 is not None:
            self._callable(destination.oauth2.token_url, (*path, "oauth2", "tokenURL"))
        for where, name in _credentials(destination):
            if lacking := self._around.keys.lacking(self._resource.namespace, name):
                self._refuse((*path, *where), lacking.reason, lacking.wrong, lacking.allowed)
        if destination.signing_key_ref is None:
            key_name = f"endpoint/{self._resource.name}"
            self._around.keys.rows(self._resource.namespace, key_name)
        else:
            key_name = self._key(
                destination.signing_key_ref, path, ("HMAC-SHA256", "Ed25519"), standard=True, signs=True
            )
        policy = self._policy(destination.retry_policy_ref, (*path, "retryPolicyRef"))
        limits = resolve(destination, policy, self._around.relay.defaults)
        if destination.batch is not None and limits.max_in_flight < destination.batch.max_events:
            wrong = (
                f"{destination.batch.max_events} deliveries of a batch are under way at once, and maxInFlight "
                f"of the Relay is {limits.max_in_flight}"
            )
            self._refuse((*path, "batch", "maxEvents"), "BatchTooLarge", wrong, "a maxInFlight of its own, or fewer")
        if destination.batch is not None and limits.policy.max_age <= destination.batch.interval:
            wrong = f"deliveries may wait as long for a batch, and maxAge ends them after {text(limits.policy.max_age)}"
            self._refuse((*path, "batch", "interval"), "BatchTooSlow", wrong, "less than maxAge")
        return key_name, limits

    def _callable(self, url: str, path: Path) -> None:
        """Ask what the deliverer asks before it sends, so that it is said now and not first of a delivery."""
        verdict = check_url(url, self._around.egress)
        if isinstance(verdict, Denied):
            reason, allowed = DENIED[verdict.reason]
            self._refuse(path, reason, verdict.detail, allowed)

    def _transform(self, path: Path, transform: Transform) -> None:
        if transform.body is not None:
            self._expression((*path, "body"), transform.body, "json")
        for index, header in enumerate(transform.headers or ()):
            self._expression((*path, "headers", index, "value"), header.value, "string")

    def _expression(self, path: Path, source: str, sort: Sort) -> None:
        compiled = compile_source(source, sort)
        if isinstance(compiled, Invalid):
            self._refuse(path, "ExpressionInvalid", compiled.wrong, compiled.allowed)

    def _key(
        self,
        reference: Reference,
        parent: Path,
        algorithms: tuple[rows.Algorithm, ...],
        *,
        standard: bool = False,
        signs: bool = False,
    ) -> str:
        """Return the name of a SigningKey in the rows; what is wrong with it is collected."""
        path = (*parent, "signingKeyRef")
        namespace, name = self._resource.namespace, reference.name
        key = self._around.inventory.find(SigningKey, namespace, name)
        if key is None:
            self._missing("SigningKey", name, path, self._around.inventory.names(SigningKey, namespace))
            return name
        if key.spec.algorithm not in algorithms:
            self._refuse(
                path,
                "WrongAlgorithm",
                f"SigningKey {name} is of algorithm {key.spec.algorithm}",
                f"one of {' or '.join(algorithms)}",
            )
            return name
        if key.spec.held_elsewhere is not None:
            wrong = f"SigningKey {name} is of the source {key.spec.source}, and signs the heads of a log alone"
            self._refuse(path, "SigningKeyElsewhere", wrong, "a SigningKey with source Generate or Secret")
            return name
        key_name = form(key, standard=standard)
        versions = self._around.keys.rows(namespace, key_name)
        if not versions:
            self._refuse(
                path, "SigningKeyNotReady", f"SigningKey {name} has no version yet", "a SigningKey without problems"
            )
        elif (namespace, key_name) in self._around.log_keys:
            self._refuse(
                path, "SigningKeyTaken", f"SigningKey {name} signs the heads of the log", "a SigningKey of its own"
            )
        elif signs and not all(version.secret for version in versions):
            self._refuse(
                path,
                "PublicKeyOnly",
                f"SigningKey {name} is a public key, which cannot sign",
                "a SigningKey with its seed",
            )
        return key_name

    def _policy(self, reference: Reference | None, path: Path) -> RetryPolicy | None:
        if reference is None:
            return None
        policy = self._around.inventory.find(RetryPolicy, self._resource.namespace, reference.name)
        if policy is None:
            self._missing(
                "RetryPolicy", reference.name, path, self._around.inventory.names(RetryPolicy, self._resource.namespace)
            )
        return policy

    def _missing(self, kind: Literal["SigningKey", "RetryPolicy"], name: str, path: Path, names: list[str]) -> None:
        identity = Identity(kind, self._resource.namespace, name)
        not_found, not_readable = _MISSING[kind]
        if self._around.inventory.may_exist(identity):
            self._refuse(path, not_readable, f"the manifest of {identity} has a problem", "a manifest without problems")
        else:
            self._refuse(path, not_found, f"there is no {identity}", choices(name, names) or f"a {kind} of that name")

    def _refuse(self, path: Path, reason: Reason, wrong: str, allowed: str) -> None:
        self.problems.append(Problem(resource=self._resource, path=path, reason=reason, wrong=wrong, allowed=allowed))


def _credentials(destination: Destination) -> Iterator[tuple[Path, str]]:
    """Yield where a destination names a Secret, and the name that it has in the rows."""
    for index, header in enumerate(destination.headers):
        if header.value_from is not None:
            yield ("headers", index, "valueFrom", "secretKeyRef"), entry_name(header.value_from.secret_key_ref)
    yield from _of_tls(destination.tls, ())
    if (oauth2 := destination.oauth2) is not None:
        yield ("oauth2", "clientIdSecretRef"), entry_name(oauth2.client_id_secret_ref)
        yield ("oauth2", "clientSecretSecretRef"), entry_name(oauth2.client_secret_secret_ref)
        yield from _of_tls(oauth2.tls, ("oauth2",))


def _of_tls(tls: Tls | None, parent: Path) -> Iterator[tuple[Path, str]]:
    row = None if tls is None else tls.row()
    if row is not None and row.ca_name is not None:
        yield (*parent, "tls", "caSecretRef"), row.ca_name
    if row is not None and row.certificate_name is not None:
        yield (*parent, "tls", "clientCertificateSecretRef"), row.certificate_name


def _endpoint_row(
    resource: WebhookEndpoint, endpoint_id: UUID, verification: rows.Verification, relay: RelaySpec
) -> rows.EndpointRow:
    spec = resource.spec
    return rows.EndpointRow(
        id=endpoint_id,
        namespace=resource.metadata.namespace,
        name=resource.metadata.name,
        verification=verification,
        idempotency=spec.idempotency.row() if spec.idempotency else None,
        rate_limit=spec.rate_limit.row() if spec.rate_limit else None,
        max_body_bytes=spec.max_body_bytes,
        retention=spec.retention or relay.retention,
        suspend=spec.suspend,
        paths=tuple(sorted(spec.paths)),
    )


def _destination_row(
    destination: Destination, destination_id: UUID, endpoint_id: UUID, key_name: str, limits: Effective
) -> rows.DestinationRow:
    return rows.DestinationRow(
        id=destination_id,
        endpoint_id=endpoint_id,
        name=destination.name,
        url=destination.url,
        headers=tuple((header.name, header.value) for header in destination.headers if header.value is not None),
        key_name=key_name,
        policy=limits.policy,
        timeout=limits.timeout,
        max_in_flight=limits.max_in_flight,
        rate_limit=limits.rate_limit,
        filter=destination.filter,
        transform=destination.transform.row() if destination.transform else None,
        sources=limits.sources,
        suspend=destination.suspend,
        acknowledgement=destination.acknowledgement.row() if destination.acknowledgement else None,
        ordering=destination.ordering.row() if destination.ordering else None,
        batch=destination.batch.row() if destination.batch else None,
        secret_headers=tuple(
            (header.name, entry_name(header.value_from.secret_key_ref))
            for header in destination.headers
            if header.value_from is not None
        ),
        tls=destination.tls.row() if destination.tls else None,
        oauth2=destination.oauth2.row() if destination.oauth2 else None,
    )

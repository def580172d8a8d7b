"""A resource of every kind, with a status in which every field is set, as an SRE might meet them at 3 a.m."""

from datetime import UTC, datetime
from typing import Any

from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_resources.kinds.status import (
    Address,
    AttestationLogStatus,
    Condition,
    DestinationStatus,
    Fence,
    Head,
    KeyVersion,
    RelayStatus,
    ReplayStatus,
    RetryPolicyStatus,
    SigningKeyStatus,
    Status,
    WebhookEndpointStatus,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SPECS: dict[str, dict[str, Any]] = {
    "Relay": {"database": {"secretRef": {"name": "postgres"}}},
    "WebhookEndpoint": {
        "relayRef": {"name": "main"},
        "verification": {"none": {}},
        "destinations": [{"name": "billing", "url": "https://billing.example.com"}],
    },
    "RetryPolicy": {},
    "SigningKey": {"algorithm": "Ed25519", "source": "Generate"},
    "AttestationLog": {"origin": "log.example.com/main"},
    "Replay": {
        "endpointRef": {"name": "orders"},
        "selection": {"from": "2026-03-01T09:00:00Z", "to": "2026-03-01T11:30:00Z"},
    },
}


def condition(type_: str, status: str, reason: str, message: str = "") -> Condition:
    """Return a condition of generation 1."""
    return Condition(
        type=type_, status=status, reason=reason, message=message, last_transition_time=NOW, observed_generation=1
    )


STATUSES: dict[str, Status] = {
    "Relay": RelayStatus(
        observed_generation=1,
        conditions=(condition("Ready", "False", "DatabaseUnreachable", "Nobody answers at pg.shop:5432."),),
        address=Address(url="https://hooks.example.com"),
        version="0.1.0",
        schema_version="0002",
        configuration_generation=7,
        endpoints=3,
        unhealthy_endpoints=2,
        pending=8241,
        oldest_pending="3m12s",
    ),
    "WebhookEndpoint": WebhookEndpointStatus(
        observed_generation=1,
        conditions=(condition("Ready", "True", "Accepted"), condition("Delivering", "False", "CircuitOpen")),
        id="8d8ac610-566d-4ef0-9c22-186b2a5ed793",
        address=Address(url="https://hooks.example.com/ingest/shop/orders"),
        destinations=(
            DestinationStatus(
                name="billing",
                id="0b0f6f6e-1111-4222-8333-444455556666",
                state="CircuitOpen",
                pending=8123,
                last_reason="http_503",
            ),
        ),
        pending=8123,
        oldest_pending="41m",
        success="12.4%",
    ),
    "RetryPolicy": RetryPolicyStatus(
        observed_generation=1,
        conditions=(condition("Ready", "True", "Accepted"),),
        type="Exponential",
        max_attempts=12,
        max_age="72h",
        spans="5s, 10s, 20s, ... at most 72h",
        users=4,
    ),
    "SigningKey": SigningKeyStatus(
        observed_generation=1,
        conditions=(condition("Ready", "True", "Accepted"),),
        version=3,
        public_key="whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
        next_rotation=NOW,
        secret_name="outgoing-key",
        versions=(
            KeyVersion(version=3, state="Live", not_before=NOW, not_after=NOW, public_key="whpk_A6EHv/POEL4dcN0="),
            KeyVersion(version=4, state="Next", not_before=NOW),
        ),
    ),
    "AttestationLog": AttestationLogStatus(
        observed_generation=1,
        conditions=(condition("Ready", "True", "Accepted"), condition("LogConsistent", "True", "Consistent")),
        origin="log.example.com/main",
        public_key="log.example.com/main+8bcd2d9d+AaEHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
        head=Head(tree_size=1893771, root_hash=ROOT_HASH, timestamp=NOW, checkpoint="log.example.com/main\n1893771\n"),
        fence=Fence(
            origin="log.example.com/main", tree_size=1893771, root_hash=ROOT_HASH, timestamp_ms=1_772_366_400_000
        ),
    ),
    "Replay": ReplayStatus(
        observed_generation=1,
        conditions=(condition("Complete", "False", "Running"),),
        matched=8123,
        enqueued=6000,
        delivered=5110,
        failed=12,
        start_time=NOW,
        completion_time=NOW,
    ),
}


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """Return a manifest without a status."""
    return {
        "apiVersion": GROUP_VERSION,
        "kind": kind,
        "metadata": {"name": name},
        "spec": SPECS[kind] | spec,
    }


def sample(kind: str, name: str) -> dict[str, Any]:
    """Return a resource with all of its status."""
    return {**resource(kind, name), "status": STATUSES[kind].document()}

"""A provider, a destination, and the account between them: for tests that break things while webhooks flow.

Used by tests/acceptance, where all of kapsel runs under `kapsel up`, and by tests/cluster/node, where it runs in pods.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

SECRET: Final = "It's a Secret to Everybody"
INGEST: Final = "/ingest/{namespace}/in"
BUSY: Final = 10.0  # seconds more than is promised, for a machine that has other tests to run


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Hold what happens in the block against a time of docs/guarantees.md."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds + BUSY, f"took {took:.1f} s, and {seconds:g} s are promised"


def manifests(namespace: str, destination: str, relay: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an endpoint `in` with two destinations below a URL, and all that it needs; `relay` is the Relay's spec."""

    def resource(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "kapsel.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}

    backoff = {"type": "Exponential", "initial": "50ms", "factor": 2, "max": "500ms", "jitter": 0.5}
    key = {"algorithm": "HMAC-SHA256", "source": "Secret", "secretRef": {"name": "in"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "in", "namespace": namespace}}
    endpoint = {
        "verification": {"github": {"signingKeyRef": {"name": "in"}}},
        "idempotency": {"source": "Provider"},
        "destinations": [
            {"name": name, "url": f"{destination}/{name}", "retryPolicyRef": {"name": "quick"}, "timeout": "2s"}
            for name in ("steady", "shaky")
        ],
    }
    return [
        {**secret, "stringData": {"github": SECRET}},
        resource("SigningKey", "in", key),
        resource("Relay", "main", relay),
        resource("AttestationLog", "log", {"origin": f"{namespace}.test/log", "publication": {"interval": "1s"}}),
        resource("RetryPolicy", "quick", {"backoff": backoff, "maxAttempts": 100}),
        resource("WebhookEndpoint", "in", endpoint),
    ]

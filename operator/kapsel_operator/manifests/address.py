"""Where webhooks are sent to: `status.address.url` of a Relay, as far as it can be known yet."""

from collections.abc import Iterator
from typing import Any, Final

from kapsel_operator.manifests import names
from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_resources.kinds.exposure import Exposure
from kapsel_resources.kinds.relay import Relay

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def url(relay: Relay, facts: Facts, *, service: Manifest | None = None, gateway: Manifest | None = None) -> str | None:
    """Return the URL under which the receivers are reached from where the Relay exposes them, without a slash.

    `service` is the receivers' Service as the cluster shows it, for the address of a load balancer: None until there is
    one. `gateway` is the Gateway of an HTTPRoute, for its scheme and port; without it, https is assumed.
    """
    exposure = relay.spec.exposure
    match exposure.type:
        case "LoadBalancer":
            host = exposure.hostname or next(balancer_hosts(service), None)
            return None if host is None else _join("http", host)
        case "Ingress" if exposure.hostname is not None:
            return _join("http" if exposure.tls_secret_ref is None else "https", exposure.hostname)
        case "HTTPRoute" if exposure.hostname is not None:
            scheme, port = _listener(exposure, exposure.hostname, gateway)
            return _join(scheme, exposure.hostname, port)
        case _:
            return inside(relay, facts)


def inside(relay: Relay, facts: Facts) -> str:
    """Return the URL of the receivers within the cluster, which is there whatever the exposure is."""
    service = names.object_name(relay.metadata.name, "receiver")
    return f"http://{service}.{relay.metadata.namespace}.svc.{facts.cluster_domain}"


def balancer_hosts(balanced: Manifest | None) -> Iterator[str]:
    """Yield the addresses that the status of a Service or Ingress names."""
    found = (balanced or {}).get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    return (host for one in found if (host := one.get("hostname") or one.get("ip")))


def _join(scheme: str, host: str, port: int | None = None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port in (None, _DEFAULT_PORTS[scheme]) else f"{scheme}://{shown}:{port}"


def _listener(exposure: Exposure, hostname: str, gateway: Manifest | None) -> tuple[str, int | None]:
    """Return scheme and port of the listener that takes the route; one with TLS if there is the choice."""
    section = exposure.gateway_ref.section_name if exposure.gateway_ref else None
    listeners = (gateway or {}).get("spec", {}).get("listeners", ())
    fitting = [one for one in listeners if _takes(one, hostname) and section in (None, one["name"])]
    for protocol in ("HTTPS", "HTTP"):
        for one in fitting:
            if one["protocol"] == protocol:
                return protocol.lower(), one["port"]
    return "https", None


def _takes(listener: dict[str, Any], hostname: str) -> bool:
    wanted = listener.get("hostname")
    if not wanted or wanted == hostname:
        return True
    return bool(wanted.startswith("*.") and hostname.endswith(wanted[1:]))

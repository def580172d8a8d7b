"""May this be called? One verdict for the plan of a manifest and for the try that follows it.

`check_url` needs no network: the plan asks it of every URL in a manifest, the deliverer once more when it loads them.
The deliverer's resolver asks `check_address` of each address that a name resolves to. A client never asks a resolver
for an IP literal, in whatever spelling: those are judged, and written in full, by `check_url`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import ClassVar, Final, Literal

from yarl import URL

from kapsel_egress import urls
from kapsel_egress.ranges import METADATA, Address, Network, embedded, special_range
from kapsel_store.rows import RelayRow

DeniedReason = Literal[
    "address_denied",  # a private or special address that the Relay does not allow
    "http_denied",  # plain http, which the Relay does not allow
    "url_invalid",  # not a URL that can be called
    "header_invalid",  # a header of the destination cannot be sent
]

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63})*\.?")
# Names that mean this machine, or the cloud's metadata service, wherever they are asked for.
_LOCAL: Final = frozenset({"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "localdomain"})
_CLOUD: Final = frozenset(
    {"metadata.google.internal", "metadata.goog", "metadata.tencentyun.com", "instance-data.ec2.internal"}
)
_HERE: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_THERE: Final = (IPv4Address("169.254.169.254"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The URL may be called, spelled so that the client cannot read another host in it."""

    url: URL


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The egress policy forbids the request; nothing was sent."""

    name: ClassVar[str] = "denied"
    reason: DeniedReason
    detail: str  # one sentence for whoever wrote the URL


def check_url(url: str, relay: RelayRow) -> Allowed | Denied:
    """Judge a URL as far as that is possible without resolving its name."""
    if wrong := urls.wrong(url):
        return Denied(reason="url_invalid", detail=wrong)
    try:
        parsed = URL(url)
    except ValueError as error:
        return Denied(reason="url_invalid", detail=f"not a URL: {error}")
    host = parsed.raw_host
    if parsed.scheme not in ("http", "https") or not host or parsed.user is not None or parsed.password is not None:
        return Denied(reason="url_invalid", detail="parsers do not agree about the URL")
    if parsed.scheme == "http" and not relay.allow_http:
        return Denied(reason="http_denied", detail="the Relay does not allow plain http")
    address = _literal(host)
    if isinstance(address, Denied):
        return address
    if address is not None:
        return check_address(address, relay) or Allowed(url=parsed.with_host(str(address)))
    return _check_name(host, relay) or Allowed(url=parsed)


def check_address(address: Address, relay: RelayRow) -> Denied | None:
    """Return why an address may not be called, or None.

    An address that carries an IPv4 address inside is allowed only if both are: to allow NAT64 is not to allow the
    private network behind it.
    """
    allowed = _networks(relay.allowed_cidrs)
    special = special_range(address)
    if special is not None and not _is_allowed(address, special, allowed):
        return Denied(reason="address_denied", detail=f"{address} is {special} and not allowed by the Relay")
    inner = embedded(address, allowed)
    return None if inner is None else check_address(inner, relay)


def _is_allowed(address: Address, special: str, allowed: tuple[Network, ...]) -> bool:
    covering = [net for net in allowed if net.version == address.version and address in net]
    if special == METADATA:
        # Credentials are served there: a wide range that happens to hold it does not mean it.
        return any(net.prefixlen == net.max_prefixlen for net in covering)
    return bool(covering)


@lru_cache(maxsize=64)
def _networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(cidr, strict=False) for cidr in cidrs)


def _check_name(host: str, relay: RelayRow) -> Denied | None:
    """Judge a name that needs no resolver: denied if none of the addresses that it stands for is allowed."""
    name = host.removesuffix(".").lower()
    if name in _LOCAL or name.endswith((".localhost", ".localdomain")):
        meant: tuple[Address, ...] = _HERE
    elif name in _CLOUD:
        meant = _THERE
    else:
        return None
    denials = [denied for address in meant if (denied := check_address(address, relay))]
    return denials[0] if len(denials) == len(meant) else None


def _literal(host: str) -> Address | Denied | None:
    """Read a host as an IP address in any spelling a C library accepts; None if it is a name."""
    if ":" in host:
        try:
            return ip_address(host)
        except ValueError:
            return Denied(reason="url_invalid", detail=f"[{host}] is not an IPv6 address")
    parts = host.removesuffix(".").split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        if _NAME.fullmatch(host) and len(host) <= 254:
            return None
        return Denied(reason="url_invalid", detail=f"{host!r} is not a host name")
    numbers = [_number(part) for part in parts]
    if len(numbers) > 4 or None in numbers:
        return Denied(reason="url_invalid", detail=f"{host!r} ends in a number and is not an IPv4 address")
    *octets, rest = [number for number in numbers if number is not None]
    if any(octet > 255 for octet in octets) or rest >= 256 ** (4 - len(octets)):
        return Denied(reason="url_invalid", detail=f"{host!r} ends in a number and is not an IPv4 address")
    return IPv4Address(sum(octet << 8 * (3 - i) for i, octet in enumerate(octets)) + rest)


def _number(part: str) -> int | None:
    """Read one part of an IPv4 address as inet_aton does: 0x is hexadecimal, a leading 0 octal."""
    if not _NUMBER.fullmatch(part):
        return None
    try:
        if part[:2].lower() == "0x":
            return int(part[2:] or "0", 16)
        return int(part, 8 if part.startswith("0") else 10)
    except ValueError:
        return None

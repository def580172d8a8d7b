"""Where deliveries may go: the egress policy, for URLs when they are planned and for addresses when they are called.

`check_url` gives the verdict that needs no network: the command line asks it when manifests are planned, `targets`
when a configuration is loaded. `GuardedResolver` asks `check_address` for each address a name resolves to, and the
client connects to exactly those, so a name cannot change between the check and the connection. The client never asks a
resolver for an IP literal, in whatever spelling: those are judged, and written in full, by `check_url`.
"""

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kapsel_deliverer.errors import AddressDeniedError
from kapsel_deliverer.outcome import Denied
from kapsel_store.rows import RelayRow

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Any of these may be allowed by a CIDR of the Relay; the first range that holds an address names it.
_SPECIAL: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("a cloud metadata service", (
        "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32", "168.63.129.16/32",
        "192.0.0.192/32", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128",
    )),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("carrier-grade NAT", ("100.64.0.0/10",)),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    ("benchmarking", ("198.18.0.0/15", "2001:2::/48")),
    ("IPv4-mapped", ("::ffff:0:0/96",)),
    ("IPv4-translated", ("::ffff:0:0:0/96",)),
    ("IPv4-compatible", ("::/96",)),
    ("NAT64", ("64:ff9b::/96", "64:ff9b:1::/48")),
    ("6to4", ("2002::/16", "192.88.99.0/24")),
    ("Teredo", ("2001::/32",)),
    ("protocol assignments", ("192.0.0.0/24", "2001::/23")),
    ("discard-only", ("100::/64", "100:0:0:1::/64")),
    ("segment routing", ("5f00::/16",)),
    ("reserved", ("240.0.0.0/4",)),
)  # fmt: skip
_METADATA: Final = _SPECIAL[0][0]
_RANGES: Final[tuple[tuple[str, Network], ...]] = tuple(
    (name, ip_network(cidr)) for name, cidrs in _SPECIAL for cidr in cidrs
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")  # all other IPv6 is not assigned

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63})*\.?")
_RESOLVER_THREADS: Final = 16  # so many names may hang in DNS before others wait for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The URL may be called, spelled so that the client cannot read another host in it."""

    url: URL


def check_url(url: str, relay: RelayRow) -> Allowed | Denied:
    """Judge a destination's URL as far as that is possible without resolving its name."""
    try:
        parsed = URL(url)
    except ValueError as error:
        return Denied(reason="url_invalid", detail=f"not a URL: {error}")
    host = parsed.raw_host
    if parsed.scheme not in ("http", "https") or not host:
        return Denied(
            reason="url_invalid", detail="a destination's URL starts with https:// or http:// and names a host"
        )
    if parsed.user is not None or parsed.password is not None:
        return Denied(reason="url_invalid", detail="credentials in a URL are not sent; use a header from a Secret")
    if parsed.scheme == "http" and not relay.allow_http:
        return Denied(reason="http_denied", detail="plain http is not allowed by the Relay")
    address = _literal(host)
    if isinstance(address, Denied):
        return address
    if address is not None:
        return check_address(address, relay) or Allowed(url=parsed.with_host(str(address)).with_fragment(None))
    if _is_local(host):
        loopbacks = [check_address(IPv4Address("127.0.0.1"), relay), check_address(IPv6Address("::1"), relay)]
        if all(loopbacks):
            return loopbacks[0] or loopbacks[1]  # type: ignore[return-value]
    return Allowed(url=parsed.with_fragment(None))


def check_address(address: Address, relay: RelayRow) -> Denied | None:
    """Return why an address may not be called, or None.

    An address that carries an IPv4 address inside is allowed only if both are: to allow NAT64 is not to allow the
    private network behind it.
    """
    special = _special_range(address)
    if special is not None and not _is_allowed(address, special, relay.allowed_cidrs):
        return Denied(reason="address_denied", detail=f"{address} is {special} and not allowed by the Relay")
    inner = _embedded(address)
    return None if inner is None else check_address(inner, relay)


def _special_range(address: Address) -> str | None:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "link-local"
    for name, network in _RANGES:
        if address.version == network.version and address in network:
            return name
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "reserved"
    return None


def _is_allowed(address: Address, special: str, cidrs: tuple[str, ...]) -> bool:
    covering = [net for net in _networks(cidrs) if net.version == address.version and address in net]
    if special == _METADATA:
        # Credentials are served there: a wide range that happens to hold it does not mean it.
        return any(net.prefixlen == net.max_prefixlen for net in covering)
    return bool(covering)


@lru_cache(maxsize=64)
def _networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(cidr, strict=False) for cidr in cidrs)


def _embedded(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, by the ranges above."""
    if isinstance(address, IPv4Address):
        return None
    if address.teredo is not None:
        return address.teredo[1]
    if address.sixtofour is not None:
        return address.sixtofour
    value = int(address)
    if any(address in IPv6Network(cidr) for cidr in ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96")):
        return IPv4Address(value & 0xFFFFFFFF) if value > 1 else None
    if address in IPv6Network("64:ff9b:1::/48"):
        # RFC 6052, a /48 prefix: 16 bits before and 16 bits after the octet that must be zero.
        return IPv4Address((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF)
    return None


def _literal(host: str) -> Address | Denied | None:
    """Read a host as an IP address in any spelling a C library accepts; None if it is a name."""
    if ":" in host:
        try:
            return IPv6Address(host.replace("%25", "%"))
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


def _is_local(host: str) -> bool:
    name = host.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost")


class GuardedResolver(AbstractResolver):
    """Resolves by `inner` and keeps back every address that the policy denies."""

    def __init__(self, inner: AbstractResolver, relay: RelayRow) -> None:
        self._inner = inner
        self._relay = relay

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the allowed addresses of a name; raise AddressDeniedError if it has denied ones alone."""
        allowed: list[ResolveResult] = []
        refusal: Denied | None = None
        for result in await self._inner.resolve(host, port, family):
            denied = check_address(ip_address(result["host"]), self._relay)
            if denied is None:
                allowed.append(result)
            else:
                refusal = denied
        if not allowed and refusal is not None:
            raise AddressDeniedError(refusal)
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class SystemResolver(AbstractResolver):
    """The system's resolver on threads of its own: the event loop's few would all be lost to names that hang."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return what getaddrinfo says."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        )
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=_host(address), port=port, family=kind, proto=proto, flags=numeric)
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _host(address: tuple[Any, ...]) -> str:
    """Return the host of a socket address, with the zone of a link-local one so that the policy sees it."""
    host: str = address[0]
    return f"{host}%{address[3]}" if len(address) > 3 and address[3] and "%" not in host else host

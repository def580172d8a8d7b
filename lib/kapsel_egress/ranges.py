"""Every range of addresses that is not simply somebody's public machine, and what each is for.

From the IANA special-purpose registries for IPv4 and IPv6, the multicast registries, and the addresses at which clouds
hand out credentials. `verdicts` judges by them, and the operator keeps pods from them. An IPv6 address
may stand for an IPv4 address: `embedded` says for which, so that both are judged.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from typing import Final, Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA: Final = "a cloud metadata service"
# Any of these may be allowed by a CIDR of the Relay; the first range that holds an address names it.
SPECIAL: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (METADATA, (
        "169.254.169.254/32",  # AWS, Google Cloud, Azure, Oracle, DigitalOcean, Hetzner, OpenStack, ...
        "169.254.169.253/32", "169.254.169.123/32", "169.254.169.250/32",  # AWS: DNS and time; Rancher
        "169.254.170.2/32", "169.254.170.23/32",  # AWS: credentials of ECS tasks and EKS pods
        "fd00:ec2::254/128", "fd00:ec2::253/128", "fd00:ec2::123/128", "fd00:ec2::23/128",  # AWS
        "fd20:ce::254/128",  # Google Cloud
        "168.63.129.16/32",  # Azure
        "100.100.100.200/32",  # Alibaba Cloud
        "192.0.0.192/32", "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud
        "169.254.0.23/32",  # Tencent Cloud
        "169.254.42.42/32", "fd00:42::42/128",  # Scaleway
        "fd00:a9fe:a9fe::1/128",  # Linode
        "fe80::a9fe:a9fe/128",  # OpenStack
        "192.80.8.124/32",  # Equinix Metal
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
    ("automatic multicast tunneling", ("192.52.193.0/24", "2001:3::/32")),
    ("AS112", ("192.31.196.0/24", "192.175.48.0/24", "2001:4:112::/48", "2620:4f:8000::/48")),
    ("ORCHID", ("2001:10::/28", "2001:20::/28", "2001:30::/28")),
    ("protocol assignments", ("192.0.0.0/24", "2001::/23")),
    ("discard-only", ("100::/64", "100:0:0:1::/64")),
    ("segment routing", ("5f00::/16",)),
    ("returned by the 6bone", ("3ffe::/16",)),
    ("reserved", ("240.0.0.0/4",)),
)  # fmt: skip
_RANGES: Final[tuple[tuple[str, Network], ...]] = tuple(
    (name, ip_network(cidr)) for name, cidrs in SPECIAL for cidr in cidrs
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")  # all other IPv6 is not assigned
_LAST_32_BITS: Final = tuple(map(IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96")))
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_PREFIXES: Final = (48, 56, 64, 96)  # that RFC 6052 knows and RFC 8215 has room for
_ISATAP: Final = (0x00005EFE, 0x02005EFE)  # RFC 5214: what stands before the IPv4 address


def special_range(address: Address) -> str | None:
    """Return what an address is for, None if it is public."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "link-local"
    for name, network in _RANGES:
        if address.version == network.version and address in network:
            return name
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "reserved"
    return None


def not_public(version: Literal[4, 6]) -> tuple[str, ...]:
    """Return every address that `special_range` names, as the fewest ranges that hold them and nothing else."""
    if version == 4:
        return tuple(map(str, collapse_addresses(one for _, one in _RANGES if isinstance(one, IPv4Network))))
    unassigned = IPv6Network("::/0").address_exclude(_GLOBAL_UNICAST)
    special = (one for _, one in _RANGES if isinstance(one, IPv6Network))
    return tuple(map(str, collapse_addresses((*unassigned, *special))))


def embedded(address: Address, allowed: tuple[Network, ...] = ()) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, None if it stands for none.

    In the local-use range of NAT64 the place of the IPv4 address depends on the prefix that a network has chosen:
    `allowed` are ranges that somebody has written down, the narrowest of which is taken for it.
    """
    if isinstance(address, IPv4Address):
        return None
    if address.teredo is not None:
        return address.teredo[1]
    if address.sixtofour is not None:
        return address.sixtofour
    value = int(address)
    if any(address in network for network in _LAST_32_BITS):
        return IPv4Address(value & 0xFFFFFFFF) if value > 1 else None
    if address in _LOCAL_NAT64:
        return _behind_nat64(value, max(_prefixes(address, allowed), default=48))
    if value >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(value & 0xFFFFFFFF)
    return None


def _prefixes(address: IPv6Address, allowed: tuple[Network, ...]) -> Iterator[int]:
    for network in allowed:
        if network.version == 6 and address in network:
            yield next((prefix for prefix in _PREFIXES if prefix >= network.prefixlen), 96)


def _behind_nat64(value: int, prefix: int) -> IPv4Address:
    """Read the IPv4 address behind a prefix as RFC 6052 places it: around the octet that must be zero, then zeros."""
    if prefix == 96:
        return IPv4Address(value & 0xFFFFFFFF)
    before = 64 - prefix  # bits of it that stand before that octet
    rest = value & (1 << 64) - 1
    if rest >> 56 or rest & (1 << 24 + before) - 1:
        return IPv4Address(0)  # it is not formed in this way: nobody can say what it stands for
    high = value >> 64 & (1 << before) - 1
    return IPv4Address(high << 32 - before | rest >> 24 + before & (1 << 32 - before) - 1)

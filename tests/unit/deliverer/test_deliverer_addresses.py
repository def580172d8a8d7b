"""Which URLs and addresses may be called, in whatever spelling."""

import socket
from ipaddress import ip_address

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.addresses import Allowed, GuardedResolver, check_address, check_url
from kapsel_deliverer.errors import AddressDeniedError
from kapsel_deliverer.outcome import Denied
from kapsel_store.rows import RelayRow

OPEN = RelayRow(allow_http=True)

SPECIAL = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "100.100.100.200", "168.63.129.16",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "100:0:0:1::1", "2001::1", "2001:2::1", "2001:10::1", "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254",
    "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "4000::1", "8000::1", "1::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1",
    "169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1",
    "198.17.255.255",
    "198.20.0.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888",
]  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_denied(address: str) -> None:
    denied = check_address(ip_address(address), OPEN)
    assert denied is not None
    assert denied.reason == "address_denied"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert check_address(ip_address(address), OPEN) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.0x0.0x0.0x1", "0177.0.0.1", "0177.0.0.01",
        "017700000001", "0x7f.1", "127.0.0.0x1", "127.000.000.001", "127.0.0.1.", "0", "0x", "00", "①②⑦.⓪.⓪.①",
        "１２７.0.0.1", "127。0。0。1", "127．0．0．1", "[::1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[64:ff9b::127.0.0.1]", "[2002:7f00:0001::]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]", "localhost", "LOCALHOST", "localhost.", "a.localhost", "169.254.169.254", "0xa9fea9fe",
        "2852039166", "0251.0376.0251.0376", "[fd00:ec2::254]", "10.1", "192.168.257", "172.1048577",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_spelling_gets_round_the_policy(scheme: str, host: str) -> None:
    verdict = check_url(f"{scheme}://{host}:8080/hooks?x=1", OPEN)
    assert isinstance(verdict, Denied)
    assert verdict.reason == "address_denied"


@pytest.mark.parametrize(
    "url",
    [
        "", "/hooks", "//example.com/", "example.com", "ftp://example.com/", "file:///etc/passwd", "http://", "http:///x",
        "http://@/", "http://a b/", "http://a..b/", "http://256.1.1.1/", "http://1.2.3.4.5/", "http://08.0.0.1/",
        "http://1.2.3.0x100/", "http://127.0.0.1\\@example.com/", "http://%31%32%37.0.0.1/", "http://x:99999/",
        "http://x:80:80/", "http://[::1/", "http://[::g]/", "http://user:password@example.com/", "http://user@example.com/",
        "http://example.com:password@127.0.0.1/", "http://" + "a." * 200 + "com/",
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_no_url(url: str) -> None:
    verdict = check_url(url, OPEN)
    assert isinstance(verdict, Denied)
    assert verdict.reason == "url_invalid"
    assert verdict.detail


def test_plain_http_must_be_allowed() -> None:
    verdict = check_url("http://example.com/", RelayRow())
    assert isinstance(verdict, Denied)
    assert verdict.reason == "http_denied"
    assert isinstance(check_url("https://example.com/", RelayRow()), Allowed)


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("https://example.com/a%20b?c=d#fragment", "https://example.com/a%20b?c=d"),
        ("https://Bücher.example/", "https://xn--bcher-kva.example/"),
        ("http://134744072:8080/x", "http://8.8.8.8:8080/x"),
        ("http://0x8.8.8.8/", "http://8.8.8.8/"),
        ("http://8.8.8.8./", "http://8.8.8.8/"),
        ("http://[2606:4700:4700:0:0:0:0:1111]/", "http://[2606:4700:4700::1111]/"),
    ],
)
def test_an_allowed_url_is_called_in_its_plain_spelling(url: str, called: str) -> None:
    verdict = check_url(url, OPEN)
    assert isinstance(verdict, Allowed)
    assert str(verdict.url) == called


@pytest.mark.parametrize(
    ("cidrs", "host", "allowed"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "0xa.1.2.3", True),
        (("10.0.0.0/8",), "192.168.0.1", False),
        (("10.1.2.3/8",), "10.9.9.9", True),
        (("127.0.0.0/8",), "localhost", True),
        (("::1/128",), "localhost", True),
        (("127.0.0.0/8",), "[::1]", False),
        (("127.0.0.0/8",), "[::ffff:127.0.0.1]", False),
        (("::ffff:0:0/96",), "[::ffff:127.0.0.1]", False),
        (("::ffff:0:0/96", "127.0.0.0/8"), "[::ffff:127.0.0.1]", True),
        (("64:ff9b::/96",), "[64:ff9b::8.8.8.8]", True),
        (("64:ff9b::/96",), "[64:ff9b::10.0.0.1]", False),
        (("64:ff9b:1::/48",), "[64:ff9b:1:808:8:800::]", True),
        (("64:ff9b:1::/48",), "[64:ff9b:1:a00:0:100::]", False),
        (("2002::/16",), "[2002:0a00:0001::1]", False),
        (("2002::/16",), "[2002:0808:0808::1]", True),
        (("0.0.0.0/0",), "10.0.0.1", True),
        (("0.0.0.0/0",), "169.254.169.254", False),
        (("169.254.0.0/16",), "169.254.169.254", False),
        (("169.254.169.254/32",), "169.254.169.254", True),
        (("fd00::/8",), "[fd00:ec2::254]", False),
    ],
)
def test_a_relay_may_allow_ranges(cidrs: tuple[str, ...], host: str, allowed: bool) -> None:
    relay = RelayRow(allow_http=True, allowed_cidrs=cidrs)
    assert isinstance(check_url(f"http://{host}/", relay), Allowed) is allowed


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}", "parts", "short"]))
def test_all_spellings_of_an_ipv4_address_have_one_verdict(value: int, spelling: str) -> None:
    plain = ip_address(value)
    octets = plain.packed
    if spelling == "parts":
        host = f"0x{octets[0]:x}.0{octets[1]:o}.{octets[2]}.0x{octets[3]:x}"
    elif spelling == "short":
        host = f"{octets[0]}.{value & 0xFFFFFF}"
    else:
        host = spelling.format(value)
    odd = check_url(f"http://{host}/", OPEN)
    assert odd == check_url(f"http://{plain}/", OPEN)
    assert isinstance(odd, Denied) == (check_address(plain, OPEN) is not None)


@given(st.integers(0, 2**128 - 1))
def test_every_ipv6_address_has_a_verdict(value: int) -> None:
    address = ip_address(value) if value >= 2**32 else ip_address(value + 2**32)
    denied = check_address(address, OPEN)
    assert denied is None or denied.reason == "address_denied"


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    assert isinstance(check_url(text, OPEN), Allowed | Denied)
    assert isinstance(check_url(f"http://{text}/", OPEN), Allowed | Denied)


class Names(AbstractResolver):
    """A resolver that knows what it is given."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def test_the_resolver_keeps_denied_addresses_back() -> None:
    results = await GuardedResolver(Names("10.0.0.1", "8.8.8.8", "::1"), OPEN).resolve("mixed.example", 443)
    assert [result["host"] for result in results] == ["8.8.8.8"]


async def test_a_name_with_denied_addresses_alone_is_denied() -> None:
    with pytest.raises(AddressDeniedError) as raised:
        await GuardedResolver(Names("10.0.0.1", "fe80::1%eth0"), OPEN).resolve("inside.example", 443)
    assert raised.value.denied.reason == "address_denied"

"""Which URLs and addresses may be called. The spellings that people think of are in tests/vectors/addresses."""

import socket
from ipaddress import ip_address

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.addresses import GuardedResolver
from kapsel_deliverer.errors import AddressDeniedError
from kapsel_egress.verdicts import Allowed, Denied, check_address, check_url
from kapsel_store.rows import RelayRow

OPEN = RelayRow(allow_http=True)


def test_plain_http_must_be_allowed() -> None:
    verdict = check_url("http://example.com/", RelayRow())
    assert isinstance(verdict, Denied)
    assert verdict.reason == "http_denied"
    assert isinstance(check_url("https://example.com/", RelayRow()), Allowed)


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

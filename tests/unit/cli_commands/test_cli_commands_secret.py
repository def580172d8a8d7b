"""Which key `kapsel secret` takes a name for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from kapsel_cli.errors import CliError
from kapsel_cli.secret import choose
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, KeyRow, Verification

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def key(name: str, version: int = 1, *, namespace: str = "shop", begins: timedelta = -DAY) -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace=namespace,
        name=name,
        version=version,
        algorithm="HMAC-SHA256",
        secret=b"s" * 32,
        not_before=NOW + begins,
    )


ORDERS = EndpointRow(id=UUID(int=1), namespace="shop", name="keyed", verification=Verification(scheme="none"))
CONFIGURATION = Configuration(
    endpoints=(ORDERS,),
    destinations=(
        DestinationRow(id=UUID(int=2), endpoint_id=ORDERS.id, name="billing", url="", key_name="generated/out"),
    ),
    keys=(
        replace(key("generated/out", 1, begins=-3 * DAY), not_after=NOW),
        key("generated/out", 2, begins=-2 * DAY),
        key("generated/out", 3),
        key("generated/out", 4, begins=DAY),
        key("endpoint/orders"),
        key("endpoint/orders", namespace="bank"),
        key("generated/same"),
        key("endpoint/same"),
        key("literal/github"),
        key("log/log.example/shop"),
    ),
)


def chosen(named: str, version: int | None = None) -> tuple[str, str, int]:
    row = choose(CONFIGURATION, named, version, NOW)
    return row.namespace, row.name, row.version


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("shop/out", ("shop", "generated/out", 3)),
        ("out", ("shop", "generated/out", 3)),
        ("shop/generated/out", ("shop", "generated/out", 3)),
        ("bank/orders", ("bank", "endpoint/orders", 1)),
        ("shop/endpoint/same", ("shop", "endpoint/same", 1)),
        ("log.example/shop", ("shop", "log/log.example/shop", 1)),
    ],
)
def test_a_name_means_the_newest_live_version_of_its_key(named: str, expected: tuple[str, str, int]) -> None:
    assert chosen(named) == expected


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_version_may_be_over_or_still_to_come_if_it_is_named(version: int) -> None:
    assert chosen("shop/out", version) == ("shop", "generated/out", version)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("orders", "may be 2 keys. Say which: bank/endpoint/orders, shop/endpoint/orders."),
        ("shop/same", "may be 2 keys. Say which: shop/endpoint/same, shop/generated/same."),
        ("shop/github", "did not make shop/github (shop/literal/github). Its value is in the Secret"),
        ("shop/ordrs", "there is no key shop/ordrs. The nearest names are: shop/orders"),
        ("ordrs", "The nearest names are: shop/orders, bank/orders"),
        ("zzz/zzz", "there is no key zzz/zzz. List them with `kapsel get keys`."),
        ("shop/keyed", "has no key of its own. Its destinations sign with: shop/generated/out."),
    ],
)
def test_a_name_that_means_none_or_several_is_answered_with_what_there_is(named: str, says: str) -> None:
    with pytest.raises(CliError) as refused:
        chosen(named)
    assert says in str(refused.value)


def test_a_version_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(CliError, match=r"shop/generated/out has no version 9. Choose with --version: 1, 2, 3, 4"):
        chosen("shop/out", 9)

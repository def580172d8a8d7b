"""Which keys judge a signature, and how directories of keys are read and kept."""

import asyncio
import json
from base64 import b64encode, urlsafe_b64encode

import pytest
from aiohttp.client_reqrep import ClientRequest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from yarl import URL

from kapsel_deliverer.acknowledging import (
    Directory,
    Judged,
    directory_url,
    judge,
    offered,
)
from kapsel_deliverer.directories import FRESH, PAUSE, STALE, Directories
from kapsel_verifier.acknowledgement import COMPONENTS, Exchange, Offer, digest_field
from kapsel_verifier.errors import MalformedKeyError
from kapsel_verifier.jwks import Key, parse, thumbprint

OLD, NEW, OTHER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
BASE = b"what was signed"
EXCHANGE = Exchange(status=200, response_digest=bytes(32), webhook_id="e", payload_hash=bytes(32), timestamp=1_000_000)


def public(key: SigningKey) -> bytes:
    return bytes(key.verify_key)


def offer(key: SigningKey, key_id: str | None = None) -> Offer:
    return Offer(BASE, key.sign(BASE).signature, 1000, key_id)


def jwk(key: SigningKey, **changes: object) -> dict[str, object]:
    x = urlsafe_b64encode(public(key)).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x, **changes}


def directory(*keys: dict[str, object]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_a_key_of_the_manifest_judges_whatever_the_signature_calls_it() -> None:
    keys = [Key(public(OLD)), Key(public(NEW))]
    expected = Judged(result="acknowledged", base=BASE, key=public(NEW), signature=NEW.sign(BASE).signature)
    assert judge([offer(NEW, "any name")], keys) == expected
    assert judge([offer(OTHER), offer(NEW)], keys) == expected
    wrong = judge([offer(OTHER, "any name")], keys)
    assert wrong is not None
    assert wrong.result == "invalid"


def test_a_published_key_judges_what_names_it_by_id_or_thumbprint_or_not_at_all() -> None:
    keys = parse(directory(jwk(OLD, kid="old"), jwk(NEW, kid="new")))
    for name in ("new", thumbprint(public(NEW)), None):
        judged = judge([offer(NEW, name)], keys)
        assert judged is not None
        assert (judged.result, judged.key) == ("acknowledged", public(NEW))
    wrong = judge([offer(NEW, "old")], keys)
    assert wrong is not None
    assert wrong.result == "invalid"
    assert judge([offer(NEW, "newer")], keys) is None


def test_the_thumbprint_is_the_one_of_rfc_8037() -> None:
    x = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert thumbprint(x) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # appendix A.3


def test_keys_of_other_kinds_and_uses_are_passed_over() -> None:
    rsa: dict[str, object] = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    entries = [rsa, jwk(OLD, use="enc"), jwk(OLD, alg="ES256"), jwk(NEW, use="sig", alg="EdDSA", nbf=-1.5), {}]
    assert [key.public for key in parse(directory(*entries))] == [public(NEW)]
    many = [jwk(SigningKey(bytes([number]) * 32)) for number in range(40)]
    assert len(parse(directory(*many))) == 16


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', directory(), directory({"kty": "RSA"}), b"[" * 16_000, b"\xff",
        directory(jwk(OLD, x="AAAA")), directory(jwk(OLD, x=None)), directory(jwk(OLD, x="A" * 42 + "B")),
        directory(jwk(OLD, x=b64encode(bytes(32)).decode())), directory(jwk(OLD, x="A" * 42 + "é")),
        b'{"keys": [1, null]}', directory(jwk(OLD)).decode().encode("utf-16"),
        directory(jwk(OLD)).decode().encode("utf-8-sig"), directory(jwk(OLD, n=float("inf"))),
    ],
)  # fmt: skip
def test_a_directory_without_a_usable_key_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedKeyError):
        parse(body)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["keys", "kty", "x", "crv", "kid"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_directory_makes_another_kind_of_error(body: bytes) -> None:
    try:
        keys = parse(body)
    except MalformedKeyError:
        return
    assert keys


def test_keys_are_published_at_the_origin() -> None:
    url = URL("https://user.example.com:8443/hooks/a?b=c#d")
    assert str(directory_url(url)) == "https://user.example.com:8443/.well-known/http-message-signatures-directory"


def test_a_response_is_missing_its_signature_or_brings_a_wrong_one_or_is_not_whole() -> None:
    parameters = f'({" ".join(COMPONENTS)});created=1000;tag="kapsel-ack"'
    fields = {
        "signature-input": f"a={parameters}",
        "signature": f"a=:{'A' * 86}==:",
        "content-digest": digest_field(bytes(32)),
    }
    good = offered(fields, EXCHANGE, whole=True, tolerance_s=5)
    assert isinstance(good, list)
    results = [
        offered({"signature-input": ""}, EXCHANGE, whole=True, tolerance_s=5),
        offered({**fields, "signature": ""}, EXCHANGE, whole=True, tolerance_s=5),
        offered(fields, EXCHANGE, whole=False, tolerance_s=5),
        offered(fields, EXCHANGE._replace(timestamp=1_006_000), whole=True, tolerance_s=5),
    ]
    assert [result.result for result in results if isinstance(result, Judged)] == ["missing", *["invalid"] * 3]


class Published:
    """A destination that publishes keys, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answer: bytes | str = directory(jwk(OLD))
        self.fetches = 0
        self.kept = Directories(lambda: self.now)

    async def fetch(self, _: Directory) -> bytes | str:
        self.fetches += 1
        await asyncio.sleep(0)
        return self.answer

    async def keys(self, *, anew: bool = False) -> object:
        url = URL("https://a.example/keys")
        where = Directory(url=str(url), head=b"", request=ClientRequest("GET", url, loop=asyncio.get_running_loop()))
        found = await self.kept.keys(where, self.fetch, anew=anew)
        return found if isinstance(found, str) else [key.public for key in found]


async def test_keys_are_fetched_once_however_many_want_them_and_again_when_they_are_old() -> None:
    published = Published()
    assert await asyncio.gather(*(published.keys() for _ in range(20))) == [[public(OLD)]] * 20
    assert published.fetches == 1
    published.answer = directory(jwk(NEW))
    published.now = FRESH - 1
    assert await published.keys() == [public(OLD)]
    published.now = FRESH
    assert await published.keys() == [public(NEW)]
    assert published.fetches == 2


async def test_a_key_that_is_not_known_is_looked_for_but_not_at_every_try() -> None:
    published = Published()
    await published.keys()
    published.answer = directory(jwk(NEW))
    assert await published.keys(anew=True) == [public(OLD)]
    published.now = PAUSE
    assert await asyncio.gather(*(published.keys(anew=True) for _ in range(5))) == [[public(NEW)]] * 5
    assert published.fetches == 2


async def test_a_directory_that_fails_is_left_alone_for_a_while_and_its_keys_hold_for_a_time() -> None:
    published = Published()
    published.answer = "status_503"
    assert await asyncio.gather(*(published.keys() for _ in range(5))) == ["status_503"] * 5
    assert published.fetches == 1
    published.now = PAUSE
    published.answer = directory(jwk(OLD))
    assert await published.keys() == [public(OLD)]
    published.answer = b"not JSON"
    published.now = PAUSE + FRESH
    assert await published.keys() == [public(OLD)]
    published.now = PAUSE + STALE
    assert await published.keys() == "the key directory is not JSON"


async def test_what_the_configuration_names_no_more_is_forgotten() -> None:
    published = Published()
    await published.keys()
    published.kept.keep({"https://a.example/keys"})
    await published.keys()
    assert published.fetches == 1
    published.kept.keep(set())
    await published.keys()
    assert published.fetches == 2

"""The schemes of providers: their own vectors, and for each way to be wrong its code."""

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kapsel_receiver import idempotency
from kapsel_receiver.proofs import Rejected, Verified
from kapsel_receiver.providers import CHECKS, MOST_FIELDS, Request, called_url
from kapsel_receiver.signatures import needs_key, verify
from kapsel_resources import key_values
from kapsel_store import event_names
from kapsel_store.rows import Idempotency, KeyRow, Scheme, Verification

MakeKey = Callable[..., KeyRow]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VECTORS = Path(__file__).parents[2] / "vectors" / "providers"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(VECTORS.glob("*.json"))}
CASES = [(scheme, case) for scheme, found in FILES.items() for case in found["cases"] if scheme != "sns"]
IDS = [f"{scheme}-{number}" for number, (scheme, _) in enumerate(CASES)]
NOT_OF_A_PROVIDER = {"hmac", "basic", "bearer", "none"}


def check(case: dict[str, Any], scheme: str, key: KeyRow | None, now: datetime | None = None) -> str:
    """Return "verified", or the code of a rejection."""
    verification = Verification(
        scheme=scheme,  # type: ignore[arg-type]
        key_name="in",
        public_url=case.get("public_url"),
        public_keys=tuple(case.get("public_keys", ())),
        trust_forwarded=case.get("trust_forwarded", False),
    )
    moment = now or EPOCH + timedelta(seconds=case.get("now", 0))
    headers, body = CIMultiDict(case["headers"]), case["body"].encode()
    verdict = verify(verification, headers, body, () if key is None else (key,), moment, case.get("target", "/"))
    if isinstance(verdict, Verified):
        return "verified"
    assert isinstance(verdict, Rejected)
    assert verdict.detail
    return verdict.code


def secret(make_key: MakeKey, scheme: str, case: dict[str, Any]) -> KeyRow:
    if case.get("secret", "").startswith("whpk_"):
        return make_key(algorithm="Ed25519", public=key_values.ed25519(case["secret"].encode()).public)
    read = key_values.standard if scheme == "standardWebhooks" else key_values.literal
    return make_key(read((case["secret"] or "unused").encode()).secret)


def of(scheme: str, number: int = 0) -> dict[str, Any]:
    return dict(FILES[scheme]["cases"][number])


def test_every_scheme_of_a_provider_has_a_file_that_says_where_its_vectors_are_from() -> None:
    assert set(FILES) == set(get_args(Scheme)) - NOT_OF_A_PROVIDER
    for scheme, found in FILES.items():
        assert found["scheme"] == scheme
        assert found["source"]
        assert found["cases"]


@pytest.mark.parametrize(("scheme", "case"), CASES, ids=IDS)
def test_a_vector_is_verified_with_its_secret_and_with_no_other(
    make_key: MakeKey, scheme: str, case: dict[str, Any]
) -> None:
    assert check(case, scheme, secret(make_key, scheme, case)) == "verified"
    stranger = {**case, "public_keys": ["00" * 31 + "01"]}
    assert check(stranger, scheme, make_key(b"another secret")) in ("signature_mismatch", "credentials_mismatch")


@pytest.mark.parametrize(("scheme", "case"), CASES, ids=IDS)
def test_one_byte_more_in_a_signed_body_is_noticed(make_key: MakeKey, scheme: str, case: dict[str, Any]) -> None:
    if scheme in ("gitlab", "okta", "microsoftGraph"):
        pytest.skip("the provider signs nothing")
    longer = {**case, "body": case["body"] + "1"}
    assert check(longer, scheme, secret(make_key, scheme, case)) == "signature_mismatch"


@pytest.mark.parametrize(("scheme", "case"), CASES, ids=IDS)
def test_without_its_headers_a_request_proves_nothing(make_key: MakeKey, scheme: str, case: dict[str, Any]) -> None:
    if scheme == "microsoftGraph":
        pytest.skip("the secret stands in the body")
    code = check({**case, "headers": {}}, scheme, secret(make_key, scheme, case))
    assert code in ("signature_missing", "credentials_missing")


TIMED = [(scheme, case) for scheme, case in CASES if "now" in case]


@pytest.mark.parametrize(("scheme", "case"), TIMED, ids=[scheme for scheme, _ in TIMED])
def test_a_request_is_good_for_five_minutes_to_either_side(
    make_key: MakeKey, scheme: str, case: dict[str, Any]
) -> None:
    key, moment = secret(make_key, scheme, case), EPOCH + timedelta(seconds=case["now"])
    for seconds in (-300, 300):
        assert check(case, scheme, key, moment + timedelta(seconds=seconds)) == "verified"
    for seconds in (-301, 301):
        late = check(case, scheme, key, moment + timedelta(seconds=seconds))
        assert late == "timestamp_out_of_tolerance"


def changed(scheme: str, headers: dict[str, str], **changes: Any) -> tuple[str, dict[str, Any]]:
    case = of(scheme)
    return scheme, {**case, **changes, "headers": {**case["headers"], **headers}}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (changed("meta", {"X-Hub-Signature-256": "sha1=00"}), "signature_malformed"),
        (changed("meta", {"X-Hub-Signature-256": "sha256=zz"}), "signature_malformed"),
        (changed("x", {"x-twitter-webhooks-signature": "sha256=00"}), "signature_malformed"),
        (changed("zoom", {"x-zm-request-timestamp": "soon"}), "timestamp_malformed"),
        (changed("paddle", {"Paddle-Signature": "h1=00"}), "timestamp_missing"),
        (changed("paddle", {"Paddle-Signature": "ts=1;ts=2;h1=00"}), "timestamp_missing"),
        (changed("paddle", {"Paddle-Signature": "ts=1696195954;h1=dummy"}), "signature_malformed"),
        (changed("paddle", {"Paddle-Signature": "ts=1696195954" + ";h1=00" * 17}), "signature_malformed"),
        (changed("pagerduty", {"X-PagerDuty-Signature": "v1=00"}), "signature_malformed"),
        (changed("pagerduty", {"X-PagerDuty-Signature": "v2=" + "00" * 32}), "signature_malformed"),
        (changed("docusign", {"X-DocuSign-Signature-2": "no"}), "signature_malformed"),
        (changed("discord", {"X-Signature-Ed25519": "00"}), "signature_malformed"),
        (changed("discord", {"X-Signature-Timestamp": ""}), "timestamp_malformed"),
        (changed("discord", {"X-Signature-Ed25519": "00" * 64}), "signature_mismatch"),
        (changed("hubspot", {"X-HubSpot-Request-Timestamp": "15000x00"}), "timestamp_malformed"),
        (changed("hubspot", {"X-HubSpot-Request-Timestamp": "12"}), "timestamp_malformed"),
        (changed("hubspot", {}, target="/another"), "verified"),  # the declared URL is the one that counts
        (changed("hubspot", {}, public_url="https://www.example.com/another"), "signature_mismatch"),
        (changed("square", {"X-Square-HmacSha256-Signature": "no"}), "signature_malformed"),
        (changed("twilio", {"X-Twilio-Signature": "no"}), "signature_malformed"),
        (changed("twilio", {"Content-Type": "application/json"}), "signature_malformed"),
        (changed("twilio", {}, target="/myapp.php?foo=1"), "signature_mismatch"),
        (changed("twilio", {}, target="/myapp.php?bodySHA256=00"), "signature_mismatch"),
        (changed("twilio", {}, body="a=1&" * (MOST_FIELDS + 1)), "signature_malformed"),
        (changed("microsoftGraph", {}, body="[]"), "credentials_missing"),
        (changed("microsoftGraph", {}, body='{"value": []}'), "credentials_missing"),
        (changed("microsoftGraph", {}, body='{"value": [{"clientState": null}]}'), "credentials_missing"),
        (
            changed(
                "microsoftGraph", {}, body='{"value": [{"clientState": "kapsel test secret"}, {"clientState": "x"}]}'
            ),
            "credentials_mismatch",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_each_fault_has_its_code(make_key: MakeKey, wrong: tuple[str, dict[str, Any]], code: str) -> None:
    scheme, case = wrong
    assert check(case, scheme, secret(make_key, scheme, case)) == code


def test_linear_s_time_stands_in_the_body_and_must_be_there(make_key: MakeKey) -> None:
    body = b'{"action": "create"}'
    key = make_key(b"s")
    case = {"body": body.decode(), "headers": {"Linear-Signature": _mac(b"s", body)}}
    assert check(case, "linear", key) == "timestamp_missing"


def _mac(key: bytes, body: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def test_what_x_signs_in_a_handshake_is_never_taken_for_a_webhook(make_key: MakeKey) -> None:
    handshake = FILES["x"]["handshake"]
    token, signed = handshake["query"]["crc_token"], json.loads(handshake["answer"])["response_token"]
    case = {"body": token, "headers": {"x-twitter-webhooks-signature": signed}}
    assert check(case, "x", make_key(handshake["secret"].encode())) == "signature_mismatch"


@pytest.mark.parametrize(
    ("row", "headers", "target", "expected"),
    [
        ({}, {"Host": "a.example"}, "/ingest/s/e?x=1", "https://a.example/ingest/s/e?x=1"),
        ({}, {"Host": "a.example", "X-Forwarded-Host": "b.example"}, "/e", "https://a.example/e"),
        (
            {"trust_forwarded": True},
            {"Host": "a.example", "X-Forwarded-Host": "evil.example, b.example", "X-Forwarded-Proto": "http"},
            "/e",
            "http://b.example/e",
        ),
        ({"trust_forwarded": True}, {"Host": "a.example"}, "/e", "https://a.example/e"),
        ({"trust_forwarded": True}, {"Host": "a.example", "X-Forwarded-Proto": "gopher"}, "/e", None),
        ({"public_url": "https://c.example/in"}, {"Host": "a.example"}, "/e?x=1", "https://c.example/in?x=1"),
        ({}, {}, "/e", None),
        ({}, {"Host": "a.example"}, "http://other.example/e", None),
    ],
)
def test_the_url_is_the_declared_one_or_that_of_the_nearest_proxy_or_of_the_host(
    row: dict[str, Any], headers: dict[str, str], target: str, expected: str | None
) -> None:
    request = Request(
        verification=Verification(scheme="twilio", **row),
        headers=CIMultiDict(headers),
        body=b"",
        keys=(),
        now=EPOCH,
        target=target,
    )
    assert called_url(request) == expected


def test_behind_a_proxy_that_is_trusted_the_forwarded_url_is_the_signed_one(make_key: MakeKey) -> None:
    case = of("twilio")
    forwarded = {"Host": "10.0.0.1:8080", "X-Forwarded-Host": "mycompany.com", "X-Forwarded-Proto": "https"}
    behind = {**case, "public_url": None, "headers": {**case["headers"], **forwarded}}
    assert check({**behind, "trust_forwarded": True}, "twilio", make_key(b"12345")) == "verified"
    assert check(behind, "twilio", make_key(b"12345")) == "signature_mismatch"


def test_only_schemes_that_show_or_want_no_secret_do_without_a_key() -> None:
    assert {scheme for scheme in get_args(Scheme) if not needs_key(scheme)} == {"none", "discord", "sns"}


BODIES = {
    "id": "7",
    "MessageId": "7",
    "event_id": "7",
    "eventId": "7",
    "event": {"id": "7"},
    "attemptNumber": 0,
    "retryCount": 0,
}


@pytest.mark.parametrize("scheme", sorted(event_names.IDS))
def test_the_provider_s_id_makes_an_event_unique(scheme: Scheme) -> None:
    def key(number: str) -> bytes | None:
        place = event_names.IDS[scheme]
        headers = {place.name: number} if isinstance(place, event_names.InHeader) else {}
        body = json.dumps(BODIES).replace("7", number).encode()
        found = CIMultiDict(headers)
        return idempotency.key(Idempotency(source="Provider"), scheme, found, body, hashlib.sha256(body).digest())

    assert key("7") == key("7") is not None
    assert key("7") != key("8")


@given(st.sampled_from(sorted(CHECKS)), st.binary(max_size=60), st.text(max_size=40), st.text(max_size=30))
def test_any_request_has_a_verdict(scheme: Scheme, body: bytes, value: str, target: str) -> None:
    names = ("X-Twilio-Signature", "Paddle-Signature", "X-PagerDuty-Signature", "X-DocuSign-Signature-1", "Host")
    headers = CIMultiDict(dict.fromkeys(names, value) | {"X-HubSpot-Request-Timestamp": value, "Content-Type": value})
    request = Request(
        verification=Verification(scheme=scheme, trust_forwarded=True),
        headers=headers,
        body=body,
        keys=(),
        now=EPOCH,
        target=target,
    )
    assert isinstance(CHECKS[scheme](request), Rejected)

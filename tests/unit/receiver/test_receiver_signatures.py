"""Signatures: published vectors, every way to be wrong, and rotation."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from kapsel_receiver.proofs import MOST_SIGNATURES, Rejected, Verified, decode
from kapsel_receiver.signatures import needs_key, verify
from kapsel_store.rows import KeyRow, Verification

MakeKey = Callable[..., KeyRow]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
GITHUB = Verification(scheme="github", key_name="in")
GITHUB_SECRET = b"It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_DIGEST = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

# https://docs.slack.dev/authentication/verifying-requests-from-slack
SLACK = Verification(scheme="slack", key_name="in")
SLACK_SECRET = b"8f742231b10e8888abcd99yyyzzz85a5"
SLACK_NOW = EPOCH + timedelta(seconds=1531420618)
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    "X-Slack-Request-Timestamp": "1531420618",
    "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}

# The vectors of Svix's own libraries and server.
STANDARD = Verification(scheme="standardWebhooks", key_name="in")
SVIX_SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
SVIX_PUBLIC = base64.b64decode("1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")
SVIX_NOW = EPOCH + timedelta(seconds=1614265330)
SVIX_BODY = b'{"test": 2432232314}'
SVIX_V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
SVIX_V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

STRIPE = Verification(scheme="stripe", key_name="in")
STRIPE_NOW = EPOCH + timedelta(seconds=1492774577)
STRIPE_SECRET = b"whsec_text_as_it_is"
STRIPE_BODY = b'{"id": "evt_1"}'


def stripe_v1(secret: bytes = STRIPE_SECRET, body: bytes = STRIPE_BODY) -> str:
    return hmac.new(secret, b"1492774577." + body, hashlib.sha256).hexdigest()


def svix(signature: str, prefix: str = "webhook-", timestamp: str = "1614265330") -> dict[str, str]:
    return {
        prefix + "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        prefix + "timestamp": timestamp,
        prefix + "signature": signature,
    }


def check(
    verification: Verification,
    headers: dict[str, str] | list[tuple[str, str]],
    body: bytes,
    *keys: KeyRow,
    now: datetime = EPOCH,
) -> str | int | None:
    """Return the code of a rejection, or the version of the key that fits (None if no key is asked for)."""
    verdict = verify(verification, CIMultiDict(headers), body, keys, now)
    if isinstance(verdict, Rejected):
        assert verdict.detail
        return verdict.code
    assert isinstance(verdict, Verified)
    return None if verdict.key_id is None else verdict.key_id.int


def test_github_s_published_vector_is_verified(make_key: MakeKey) -> None:
    headers = {"x-hub-signature-256": "sha256=" + GITHUB_DIGEST}
    assert check(GITHUB, headers, GITHUB_BODY, make_key(GITHUB_SECRET)) == 1


def test_slack_s_published_vector_is_verified(make_key: MakeKey) -> None:
    assert check(SLACK, SLACK_HEADERS, SLACK_BODY, make_key(SLACK_SECRET), now=SLACK_NOW) == 1


@pytest.mark.parametrize("prefix", ["webhook-", "svix-", "Webhook-"])
def test_svix_s_published_hmac_vector_is_verified_under_both_names(make_key: MakeKey, prefix: str) -> None:
    assert check(STANDARD, svix(SVIX_V1, prefix), SVIX_BODY, make_key(SVIX_SECRET), now=SVIX_NOW) == 1


def test_svix_s_published_ed25519_vector_is_verified(make_key: MakeKey) -> None:
    key = make_key(algorithm="Ed25519", public=SVIX_PUBLIC)
    assert check(STANDARD, svix(SVIX_V1A), SVIX_BODY, key, now=SVIX_NOW) == 1


def test_a_list_of_standard_webhooks_signatures_is_good_if_one_of_them_is(make_key: MakeKey) -> None:
    others = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,unknown "
    assert check(STANDARD, svix(others + SVIX_V1), SVIX_BODY, make_key(SVIX_SECRET), now=SVIX_NOW) == 1
    ed25519 = make_key(algorithm="Ed25519", public=SVIX_PUBLIC, version=2)
    keys = (make_key(b"another"), ed25519)
    assert check(STANDARD, svix(f"{SVIX_V1} {SVIX_V1A}"), SVIX_BODY, *keys, now=SVIX_NOW) == 2


def test_shopify_s_base64_digest_of_the_body_is_verified(make_key: MakeKey) -> None:
    digest = base64.b64encode(hmac.digest(b"hush", b"{}", "sha256")).decode()
    verification = Verification(scheme="shopify", key_name="in")
    assert check(verification, {"X-Shopify-Hmac-Sha256": digest}, b"{}", make_key(b"hush")) == 1
    assert check(verification, {"X-Shopify-Hmac-Sha256": digest.rstrip("=")}, b"{}", make_key(b"hush")) == (
        "signature_malformed"
    )


def test_stripe_s_header_may_hold_several_signatures_of_which_one_fits(make_key: MakeKey) -> None:
    header = (
        f"t=1492774577, v1={stripe_v1(b'old')},v1={stripe_v1()},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816"
    )
    assert check(STRIPE, {"Stripe-Signature": header}, STRIPE_BODY, make_key(STRIPE_SECRET), now=STRIPE_NOW) == 1


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "signature_missing"),
        (f"v1={stripe_v1()}", "timestamp_missing"),
        (f"t=1492774577,t=1492774577,v1={stripe_v1()}", "timestamp_missing"),
        (f"t=+1492774577,v1={stripe_v1()}", "timestamp_malformed"),
        (f"t=١٤٩٢٧٧٤٥٧٧,v1={stripe_v1()}", "timestamp_malformed"),
        (f"t=1492774577000000,v1={stripe_v1()}", "timestamp_malformed"),
        ("t=1492774577", "signature_malformed"),
        ("t=1492774577,v1=zz", "signature_malformed"),
        ("t=1492774577,v1=" + stripe_v1()[:-2], "signature_malformed"),
        (f"t=1492774577,v1={stripe_v1()},v1=", "signature_malformed"),
        ("t=1492774577" + f",v1={stripe_v1()}" * (MOST_SIGNATURES + 1), "signature_malformed"),
        (f"t=1492774577,v1={stripe_v1(b'forged')}", "signature_mismatch"),
        (f"t=1492774276,v1={stripe_v1()}", "timestamp_out_of_tolerance"),
        (f"t=1492774878,v1={stripe_v1()}", "timestamp_out_of_tolerance"),
        (f"t=1492774578,v1={stripe_v1()}", "signature_mismatch"),
    ],
)
def test_each_fault_of_a_stripe_header_has_its_code(make_key: MakeKey, header: str, code: str) -> None:
    assert check(STRIPE, {"Stripe-Signature": header}, STRIPE_BODY, make_key(STRIPE_SECRET), now=STRIPE_NOW) == code


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "signature_missing"),
        ("", "signature_missing"),
        (GITHUB_DIGEST, "signature_malformed"),
        ("sha1=" + GITHUB_DIGEST, "signature_malformed"),
        ("sha256=", "signature_malformed"),
        ("sha256= " + GITHUB_DIGEST, "signature_malformed"),
        ("sha256=" + GITHUB_DIGEST[:-1], "signature_malformed"),
        ("sha256=" + GITHUB_DIGEST + "00", "signature_malformed"),
        ("sha256=" + "é" * 64, "signature_malformed"),
        ("sha256=" + "0" * 64, "signature_mismatch"),
    ],
)
def test_each_fault_of_a_github_header_has_its_code(make_key: MakeKey, header: str | None, code: str) -> None:
    headers = {} if header is None else {"X-Hub-Signature-256": header}
    assert check(GITHUB, headers, GITHUB_BODY, make_key(GITHUB_SECRET)) == code


def test_a_signature_header_that_is_there_twice_is_refused_even_if_one_fits(make_key: MakeKey) -> None:
    twice = [("X-Hub-Signature-256", "sha256=" + GITHUB_DIGEST), ("X-Hub-Signature-256", "sha256=" + "0" * 64)]
    assert check(GITHUB, twice, GITHUB_BODY, make_key(GITHUB_SECRET)) == "signature_malformed"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"webhook-id": ""}, "signature_missing"),
        ({"webhook-timestamp": "soon"}, "timestamp_malformed"),
        ({"webhook-timestamp": "1614265029"}, "timestamp_out_of_tolerance"),
        ({"webhook-id": "msg_other"}, "signature_mismatch"),
        ({"webhook-signature": "v1,***"}, "signature_malformed"),
        ({"webhook-signature": "v1a," + SVIX_V1.removeprefix("v1,")}, "signature_malformed"),
        ({"webhook-signature": "v3,abc"}, "signature_malformed"),
        ({"webhook-signature": " ".join([SVIX_V1] * (MOST_SIGNATURES + 1))}, "signature_malformed"),
        ({"webhook-signature": ""}, "signature_missing"),
    ],
)
def test_each_fault_of_standard_webhooks_headers_has_its_code(
    make_key: MakeKey, change: dict[str, str], code: str
) -> None:
    assert check(STANDARD, svix(SVIX_V1) | change, SVIX_BODY, make_key(SVIX_SECRET), now=SVIX_NOW) == code


def test_a_missing_timestamp_header_is_refused(make_key: MakeKey) -> None:
    headers = {"X-Slack-Signature": SLACK_HEADERS["X-Slack-Signature"]}
    assert check(SLACK, headers, SLACK_BODY, make_key(SLACK_SECRET), now=SLACK_NOW) == "timestamp_missing"


def test_a_replayed_request_is_refused_once_the_tolerance_is_over(make_key: MakeKey) -> None:
    key = make_key(SLACK_SECRET)
    edge = SLACK_NOW + timedelta(minutes=5)
    assert check(SLACK, SLACK_HEADERS, SLACK_BODY, key, now=edge) == 1
    later = edge + timedelta(seconds=1)
    assert check(SLACK, SLACK_HEADERS, SLACK_BODY, key, now=later) == "timestamp_out_of_tolerance"


def test_every_live_key_is_tried_and_the_one_that_fits_is_named(make_key: MakeKey) -> None:
    headers = {"X-Hub-Signature-256": "sha256=" + GITHUB_DIGEST}
    keys = (make_key(b"newer"), make_key(GITHUB_SECRET, version=2), make_key(algorithm="Ed25519", version=3))
    assert check(GITHUB, headers, GITHUB_BODY, *keys) == 2
    assert check(GITHUB, headers, GITHUB_BODY) == "signature_mismatch"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("timestamp_header", [None, "X-Time"])
def test_generic_hmac_takes_any_header_prefix_encoding_and_algorithm(
    make_key: MakeKey, algorithm: str, encoding: str, timestamp_header: str | None
) -> None:
    verification = Verification(
        scheme="hmac",
        key_name="in",
        header="X-Sig",
        prefix="mac:",
        encoding=encoding,  # type: ignore[arg-type]
        algorithm=algorithm,  # type: ignore[arg-type]
        timestamp_header=timestamp_header,
        tolerance=timedelta(seconds=10),
    )
    digest = hmac.digest(b"key", b"5.body" if timestamp_header else b"body", algorithm)
    text = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    headers = {"X-Sig": "mac:" + text, "X-Time": "5"}
    assert check(verification, headers, b"body", make_key(b"key")) == 1
    assert check(verification, headers, b"body!", make_key(b"key")) == "signature_mismatch"
    late = check(verification, headers, b"body", make_key(b"key"), now=EPOCH + timedelta(seconds=16))
    assert late == ("timestamp_out_of_tolerance" if timestamp_header else 1)


def basic(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (basic(b"user:pass:word"), 1),
        (basic(b"user:pass:word").replace("Basic", "bAsIc"), 1),
        (None, "credentials_missing"),
        (basic(b"user:pass"), "credentials_mismatch"),
        ("Basic", "credentials_malformed"),
        ("Basic ", "credentials_malformed"),
        ("Basic ***", "credentials_malformed"),
        ("Bearer user:pass:word", "credentials_malformed"),
    ],
)
def test_basic_compares_the_whole_pair(make_key: MakeKey, authorization: str | None, expected: int | str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    assert check(Verification(scheme="basic", key_name="in"), headers, b"", make_key(b"user:pass:word")) == expected


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer tökén", 1),
        ("bearer  tökén ", 1),
        ("Bearer token", "credentials_mismatch"),
        ("Bearer", "credentials_malformed"),
        ("tökén", "credentials_malformed"),
    ],
)
def test_bearer_compares_the_token_as_bytes(make_key: MakeKey, authorization: str, expected: int | str) -> None:
    verification = Verification(scheme="bearer", key_name="in")
    assert check(verification, {"Authorization": authorization}, b"", make_key("tökén".encode())) == expected


def test_two_authorization_headers_are_refused(make_key: MakeKey) -> None:
    twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    assert check(Verification(scheme="bearer", key_name="in"), twice, b"", make_key(b"a")) == "credentials_missing"


def test_none_asks_for_nothing() -> None:
    assert check(Verification(scheme="none"), {}, b"") is None
    assert not needs_key("none")
    assert needs_key("github")


@given(st.binary(max_size=80))
def test_decoding_returns_what_was_encoded(value: bytes) -> None:
    assert decode(value.hex(), "hex") == value
    assert decode(base64.b64encode(value).decode(), "base64") == value


@given(st.text(max_size=40), st.sampled_from(["hex", "base64"]))
def test_decoding_is_strict_for_any_text(text: str, encoding: str) -> None:
    found = decode(text, encoding)  # type: ignore[arg-type]
    if found is not None:
        again = found.hex() if encoding == "hex" else base64.b64encode(found).decode()
        assert len(again) == len(text)
        assert text.isascii()


@given(
    st.sampled_from(["github", "stripe", "shopify", "slack", "standardWebhooks", "hmac", "basic", "bearer"]),
    st.dictionaries(
        st.sampled_from(
            [
                "X-Hub-Signature-256", "Stripe-Signature", "X-Shopify-Hmac-SHA256", "X-Slack-Signature",
                "X-Slack-Request-Timestamp", "webhook-id", "webhook-timestamp", "webhook-signature", "X-Signature",
                "Authorization",
            ]
        ),
        st.text() | st.sampled_from(["0", "t=0,v1=" + "00" * 32, "v1," + "A" * 43 + "=", "sha256=" + "00" * 32]),
    ),
    st.binary(max_size=64),
)  # fmt: skip
def test_nobody_gets_in_by_arbitrary_headers(scheme: str, headers: dict[str, str], body: bytes) -> None:
    key = KeyRow(
        id=UUID(int=9),
        namespace="shop",
        name="in",
        version=1,
        algorithm="HMAC-SHA256",
        secret=b"nobody knows this secret of 32 b",
        not_before=EPOCH,
    )
    verification = Verification(scheme=scheme, key_name="in")  # type: ignore[arg-type]
    assert isinstance(verify(verification, CIMultiDict(headers), body, (key,), EPOCH), Rejected)

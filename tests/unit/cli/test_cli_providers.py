"""What providers put on the wire: the receiver accepts it, and published examples come out the same."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from multidict import CIMultiDict

from kapsel_cli.providers import Outgoing, headers, new_id
from kapsel_cli.send import SCHEMES
from kapsel_receiver.proofs import Rejected, Verified
from kapsel_receiver.signatures import verify
from kapsel_resources import key_values
from kapsel_resources.key_values import KeyValue
from kapsel_store.rows import KeyRow, Verification

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BODY = b'{"id": "evt_1", "ok": true}'
URL = "https://hooks.example.com/in"
SEED = "whsk_" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def outgoing(secret: bytes, body: bytes = BODY, now: datetime = NOW) -> Outgoing:
    return Outgoing(body=body, secret=secret, id="id-1", type="push", now=now, url=URL)


def row(value: KeyValue, algorithm: str = "HMAC-SHA256") -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name="k",
        version=1,
        algorithm=algorithm,  # type: ignore[arg-type]
        secret=value.secret,
        public=value.public,
        not_before=NOW,
    )


@pytest.mark.parametrize(
    ("verification", "secret", "key"),
    [
        (Verification(scheme="github"), b"s", row(key_values.literal(b"s"))),
        (Verification(scheme="stripe"), b"whsec_x", row(key_values.literal(b"whsec_x"))),
        (Verification(scheme="shopify"), b"s", row(key_values.literal(b"s"))),
        (Verification(scheme="slack"), b"s", row(key_values.literal(b"s"))),
        (Verification(scheme="standardWebhooks"), b"whsec_c2VjcmV0", row(key_values.standard(b"whsec_c2VjcmV0"))),
        (Verification(scheme="standardWebhooks"), SEED.encode(), row(key_values.ed25519(SEED.encode()), "Ed25519")),
        (Verification(scheme="hmac", header="X-Sig"), b"s", row(key_values.literal(b"s"))),
        (
            Verification(scheme="hmac", header="X-Sig", prefix="sha512=", encoding="base64", algorithm="sha512"),
            b"s",
            row(key_values.literal(b"s")),
        ),
        (Verification(scheme="hmac", header="X-Sig", timestamp_header="X-Time"), b"s", row(key_values.literal(b"s"))),
        *(
            (Verification(scheme=scheme, public_url=URL), b"s", row(key_values.literal(b"s")))
            for scheme in ("gitlab", "meta", "okta", "x", "zoom", "paddle", "square", "hubspot", "pagerduty")
        ),
        (Verification(scheme="docusign"), b"s", row(key_values.literal(b"s"))),
        (Verification(scheme="dropbox"), b"s", row(key_values.literal(b"s"))),
        (Verification(scheme="basic"), b"user:password", row(key_values.literal(b"user:password"))),
        (Verification(scheme="bearer"), b"token", row(key_values.literal(b"token"))),
    ],
    ids=lambda value: value.scheme if isinstance(value, Verification) else "",
)
def test_the_receiver_accepts_what_is_signed_and_refuses_another_secret(
    verification: Verification, secret: bytes, key: KeyRow
) -> None:
    sent = CIMultiDict(headers(verification, outgoing(secret)))
    assert isinstance(verify(verification, sent, BODY, [key], NOW, "/in"), Verified)
    stranger = row(key_values.literal(b"another:secret"))
    assert isinstance(verify(verification, sent, BODY, [stranger], NOW), Rejected)


def test_twilio_signs_a_form_linear_the_time_in_the_body_and_discord_with_a_pair_of_its_own() -> None:
    form, stamped = b"Digits=1&From=%2B1", f'{{"webhookTimestamp": {int(NOW.timestamp()) * 1000}}}'.encode()
    public = key_values.ed25519(SEED.encode()).public
    assert public is not None
    for verification, body, secret in (
        (Verification(scheme="twilio", public_url=URL), form, b"s"),
        (Verification(scheme="linear"), stamped, b"s"),
        (Verification(scheme="discord", public_keys=(public.hex(),)), BODY, SEED.encode()),
    ):
        sent = CIMultiDict(headers(verification, outgoing(secret, body)))
        assert isinstance(verify(verification, sent, body, [row(key_values.literal(b"s"))], NOW, "/in"), Verified)
        assert isinstance(
            verify(verification, sent, body + b"1", [row(key_values.literal(b"s"))], NOW, "/in"), Rejected
        )


def test_github_signs_as_its_documentation_shows() -> None:
    signed = headers(Verification(scheme="github"), outgoing(b"It's a Secret to Everybody", b"Hello, World!"))
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signed["X-Hub-Signature-256"] == expected


def test_standard_webhooks_signs_as_its_specification_shows() -> None:
    webhook = Outgoing(
        body=b'{"test": 2432232314}',
        secret=b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        type="test",
        now=datetime.fromtimestamp(1614265330, UTC),
    )
    signed = headers(Verification(scheme="standardWebhooks"), webhook)
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_event_gets_an_id_of_its_own() -> None:
    assert new_id("stripe").startswith("evt_")
    assert new_id("github") != new_id("github")


def test_the_docs_name_every_scheme_that_a_webhook_can_be_sent_as() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("| `--as SCHEME` |")]
    assert tuple(re.findall(r"`(\w+)`", line.partition("|")[2].partition("|")[2])) == SCHEMES

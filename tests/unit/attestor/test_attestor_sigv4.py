"""Signed requests to AWS, against the examples that AWS publishes, and Google's checksum against its check value."""

from datetime import UTC, datetime

import pytest

from kapsel_attestor.signers.crc32c import crc32c
from kapsel_attestor.signers.sigv4 import Credentials, signed_headers, signing_key

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "headers", "body", "names", "signature"),
    [
        ("GET", {}, b"", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", {}, b"", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "POST",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_requests_of_the_published_suite_have_the_published_signatures(
    method: str, headers: dict[str, str], body: bytes, names: str, signature: str
) -> None:
    signed = signed_headers(
        Credentials("AKIDEXAMPLE", SECRET),
        method=method,
        path="/",
        headers={"Host": "example.amazonaws.com", **headers},
        body=body,
        region="us-east-1",
        service="service",
        now=NOW,
    )
    assert signed["X-Amz-Date"] == "20150830T123600Z"
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_the_key_of_a_day_is_the_published_one() -> None:
    key = signing_key(SECRET, "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


def test_the_token_of_a_session_is_signed_too() -> None:
    signed = signed_headers(
        Credentials("AKIDEXAMPLE", SECRET, "session"),
        method="POST",
        path="/",
        headers={"Host": "example.amazonaws.com"},
        body=b"",
        region="us-east-1",
        service="kms",
        now=NOW,
    )
    assert signed["X-Amz-Security-Token"] == "session"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in signed["Authorization"]


@pytest.mark.parametrize(
    ("data", "value"), [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)]
)
def test_checksums_are_those_of_rfc_3720(data: bytes, value: int) -> None:
    assert crc32c(data) == value

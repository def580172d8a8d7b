"""Amazon SNS: what is signed, by which certificate, and for which topic."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_receiver import sns
from kapsel_receiver.proofs import Rejected, Verified
from kapsel_store.rows import Verification

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "providers" / "sns.json").read_text())
CERTIFICATE = VECTORS["certificate"].encode()
NOW = datetime.fromtimestamp(VECTORS["cases"][0]["now"], UTC)
TOPIC = "arn:aws:sns:us-west-2:123456789012:MyTopic"
ROW = Verification(scheme="sns", topic_arns=(TOPIC,))
NOTIFICATION = json.loads(VECTORS["cases"][0]["body"])
CONFIRMATION = json.loads(VECTORS["cases"][2]["body"])


def check(document: dict[str, Any], *, now: datetime = NOW, certificate: bytes = CERTIFICATE) -> str:
    message = sns.read(ROW, json.dumps(document).encode())
    verdict = message if isinstance(message, Rejected) else sns.verify(message, certificate, now)
    return "verified" if isinstance(verdict, Verified) else verdict.code


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["about"])
def test_a_vector_is_verified(case: dict[str, Any]) -> None:
    assert check(json.loads(case["body"])) == "verified"


LATER = "2026-11-22T23:10:07.655Z"


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp"])
def test_each_signed_member_of_a_notification_is_noticed_if_it_changes_or_goes(name: str) -> None:
    assert check(NOTIFICATION | {name: LATER}) == "signature_mismatch"
    rest = {key: value for key, value in NOTIFICATION.items() if key != name}
    assert check(rest) == ("signature_mismatch" if name == "Subject" else "signature_malformed")


@pytest.mark.parametrize("name", ["Token", "Message", "Timestamp"])
def test_each_signed_member_of_a_confirmation_is_noticed(name: str) -> None:
    assert check(CONFIRMATION | {name: LATER}) == "signature_mismatch"


@pytest.mark.parametrize("document", [NOTIFICATION, CONFIRMATION], ids=["notification", "confirmation"])
def test_a_message_is_taken_as_long_as_sns_tries_and_not_when_it_is_played_back(document: dict[str, Any]) -> None:
    assert check(document, now=NOW + timedelta(hours=1, minutes=25)) == "verified"
    assert check(document, now=NOW + timedelta(hours=2, minutes=1)) == "timestamp_out_of_tolerance"
    assert check(document, now=NOW - timedelta(hours=2, minutes=1)) == "timestamp_out_of_tolerance"


@pytest.mark.parametrize("text", ["another", "2026-11-22T23:10:06.655", "2026-11-22T25:10:06Z"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    assert check(NOTIFICATION | {"Timestamp": text}) == "timestamp_malformed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"TopicArn": "arn:aws:sns:us-west-2:999999999999:Mine"}, "credentials_mismatch"),
        ({"Signature": None}, "signature_missing"),
        ({"Signature": "no base64!"}, "signature_malformed"),
        ({"SignatureVersion": "3"}, "signature_malformed"),
        ({"SignatureVersion": "2"}, "signature_mismatch"),
        ({"Type": "Other"}, "signature_malformed"),
    ],
)
def test_each_fault_has_its_code(changes: dict[str, Any], code: str) -> None:
    assert check(NOTIFICATION | changes) == code


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.us-west-2.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
        "https://evil.example/sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.us-west-2.amazonaws.com@evil.example/SimpleNotificationService-1.pem",
        "https://sns.us-west-2.amazonaws.com:8443/SimpleNotificationService-1.pem",
        "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem?x=1",
        "https://sns.us-west-2.amazonaws.com/../SimpleNotificationService-1.pem",
        "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem\n",
        "https://bucket.s3.amazonaws.com/SimpleNotificationService-1.pem",
    ],
)
def test_a_certificate_of_any_other_place_is_not_even_fetched(url: str) -> None:
    assert check(NOTIFICATION | {"SigningCertURL": url}) == "signature_malformed"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/?Action=ConfirmSubscription&TopicArn={topic}&Token=1",
        "http://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=1",
        "https://sns.us-west-2.amazonaws.com/x?Action=ConfirmSubscription&TopicArn={topic}&Token=1",
        "https://sns.us-west-2.amazonaws.com/?Action=DeleteTopic&TopicArn={topic}&Token=1",
        "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:1:x&Token=1",
        "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}",
        "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=1\n",
        "https://sns.us-west-2.amazonaws.com/?" + "a=1&" * 20,
    ],
)
def test_nothing_is_visited_but_what_confirms_this_topic(url: str) -> None:
    assert check(CONFIRMATION | {"SubscribeURL": url.replace("{topic}", TOPIC)}) == "signature_malformed"
    assert check(CONFIRMATION | {"SubscribeURL": None}) == "signature_malformed"


def test_only_a_confirmation_names_a_place_to_visit() -> None:
    kinds = {}
    for case in VECTORS["cases"]:
        message = sns.read(ROW, case["body"].encode())
        assert isinstance(message, sns.Message)
        kinds[message.type] = message.subscribe_url
    assert kinds["SubscriptionConfirmation"] == CONFIRMATION["SubscribeURL"]
    assert (kinds["Notification"], kinds["UnsubscribeConfirmation"]) == (None, None)


def test_a_certificate_that_is_none_or_over_proves_nothing() -> None:
    assert check(NOTIFICATION, certificate=b"<html>") == "signature_malformed"
    assert check(NOTIFICATION, now=NOW + timedelta(days=40_000)) == "signature_malformed"
    assert check(NOTIFICATION, now=NOW - timedelta(days=40_000 // 10)) == "signature_malformed"


def test_the_host_follows_from_the_topic() -> None:
    assert sns.host_of("arn:aws-cn:sns:cn-north-1:123456789012:t") == "sns.cn-north-1.amazonaws.com.cn"
    assert sns.host_of(TOPIC) == "sns.us-west-2.amazonaws.com"


@given(st.binary(max_size=80))
def test_any_body_has_a_verdict(body: bytes) -> None:
    assert isinstance(sns.read(ROW, body), Rejected)

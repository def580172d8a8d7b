"""Handshakes: what each provider wants to hear, and what nobody gets to hear."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from kapsel_receiver.handshakes import LARGEST, Answer, asked, looked, proved
from kapsel_receiver.proofs import Rejected
from kapsel_store.rows import KeyRow, Scheme

MakeKey = Callable[..., KeyRow]
VECTORS = Path(__file__).parents[2] / "vectors" / "providers"


def look(scheme: Scheme, query: dict[str, str], *keys: KeyRow, **headers: str) -> Answer | Rejected | None:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return looked(scheme, query, named, keys, keys)


def said(answer: Answer | Rejected | None) -> Any:
    assert isinstance(answer, Answer)
    return json.loads(answer.body) if answer.content_type == "application/json" else answer.body.decode()


def refused(answer: Answer | Rejected | None) -> str:
    assert isinstance(answer, Rejected)
    return answer.code


def test_meta_hears_its_challenge_if_it_says_the_verify_token(make_key: MakeKey) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "meatyhamhock", "hub.challenge": "1158201444"}
    assert said(look("meta", query, make_key(b"old"), make_key(b"meatyhamhock"))) == "1158201444"
    assert refused(look("meta", query, make_key(b"another"))) == "credentials_mismatch"
    assert refused(look("meta", query)) == "credentials_mismatch"
    assert refused(look("meta", query | {"hub.mode": "unsubscribe"}, make_key(b"meatyhamhock")))
    page = {"hub.challenge": "<script>alert(1)</script>"}
    assert refused(look("meta", query | page, make_key(b"meatyhamhock"))) == "credentials_malformed"
    assert look("meta", {}, make_key(b"meatyhamhock")) is None


def test_x_hears_the_mac_of_its_token_by_the_youngest_key(make_key: MakeKey) -> None:
    vector = json.loads((VECTORS / "x.json").read_text())["handshake"]
    young = make_key(vector["secret"].encode(), version=2)
    assert said(look("x", vector["query"], make_key(b"old"), young)) == json.loads(vector["answer"])
    assert refused(look("x", vector["query"])) == "credentials_mismatch"


@pytest.mark.parametrize("token", ["", "{}", '{"for_user_id": "1"}', " x", "a b", "x" * 513, "ü"])
def test_x_s_answer_never_signs_what_could_be_a_webhook(make_key: MakeKey, token: str) -> None:
    assert refused(look("x", {"crc_token": token}, make_key(b"s"))) == "credentials_malformed"


def test_dropbox_hears_its_challenge(make_key: MakeKey) -> None:
    assert said(look("dropbox", {"challenge": "wkp-0_"}, make_key(b"s"))) == "wkp-0_"
    assert refused(look("dropbox", {"challenge": "<b>"}, make_key(b"s"))) == "credentials_malformed"


def test_okta_hears_its_challenge_as_json(make_key: MakeKey) -> None:
    answer = look("okta", {}, make_key(b"s"), X_Okta_Verification_Challenge='a "quoted" one')
    assert said(answer) == {"verification": 'a "quoted" one'}
    assert look("okta", {}, make_key(b"s")) is None


def test_microsoft_graph_hears_its_token_as_plain_text() -> None:
    token = "Validation: Testing client application reachability for subscription Request-Id: 1"
    answer = asked("microsoftGraph", {"validationToken": token})
    assert said(answer) == token
    assert isinstance(answer, Answer)
    assert answer.content_type.startswith("text/plain")
    assert refused(asked("microsoftGraph", {"validationToken": "a\nb"})) == "credentials_malformed"
    assert asked("microsoftGraph", {}) is None
    assert asked("github", {"validationToken": token}) is None


def test_slack_hears_its_challenge(make_key: MakeKey) -> None:
    body = {"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "3eZbrw1aBm2rZgRNFdxV2595", "type": "url_verification"}
    assert said(proved("slack", json.dumps(body).encode(), make_key(b"s"))) == body["challenge"]
    assert refused(proved("slack", b'{"type": "url_verification"}', make_key(b"s"))) == "credentials_malformed"
    for webhook in (b'{"type": "event_callback"}', b"payload=1", b"[]", b"", b" " * LARGEST + b"{}"):
        assert proved("slack", webhook, make_key(b"s")) is None


def test_zoom_hears_the_mac_of_its_token_by_the_key_that_signed(make_key: MakeKey) -> None:
    vector = json.loads((VECTORS / "zoom.json").read_text())["handshake"]
    answer = proved("zoom", vector["body"].encode(), make_key(vector["secret"].encode()))
    assert said(answer) == json.loads(vector["answer"])
    forged = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": "v0:1:{}"}}).encode()
    assert refused(proved("zoom", forged, make_key(b"s"))) == "credentials_malformed"
    assert proved("zoom", b'{"event": "meeting.started"}', make_key(b"s")) is None


def test_discord_hears_nothing_after_a_ping_of_events_and_pong_after_one_of_interactions() -> None:
    events = proved("discord", b'{"version": 1, "application_id": "1", "type": 0}', None)
    assert isinstance(events, Answer)
    assert (events.status, events.body) == (204, b"")
    assert said(proved("discord", b'{"id": "1", "type": 1, "token": "t"}', None)) == {"type": 1}
    assert proved("discord", b'{"type": 1, "event": {"type": "APPLICATION_AUTHORIZED"}}', None) is None
    assert proved("discord", b'{"type": 2}', None) is None
    assert proved("discord", b'{"type": true}', None) is None


def test_no_scheme_answers_the_handshake_of_another(make_key: MakeKey) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "s", "crc_token": "1", "challenge": "1"}
    for scheme in ("github", "stripe", "zoom", "none", "bearer"):
        assert look(scheme, query, make_key(b"s")) is None  # type: ignore[arg-type]
        assert proved(scheme, b'{"type": "event_callback", "challenge": "1"}', make_key(b"s")) is None  # type: ignore[arg-type]

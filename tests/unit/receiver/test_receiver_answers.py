"""Refusals as people and programs meet them: problem documents, and a log that cannot be flooded."""

import json
import logging
from pathlib import Path
from typing import get_args

import pytest

from kapsel_receiver.answers import wire
from kapsel_receiver.problems import ANSWERS, Refusal, answer, document
from kapsel_receiver.proofs import Code as SignatureCode
from kapsel_receiver.refusals import A_SECOND, RefusalLog
from kapsel_receiver.settings import ReceiverSettings
from kapsel_runtime.settings import load

REFUSAL = Refusal(code="overloaded", detail='4096 "wait"', retry_after=3)


def test_every_code_has_an_error_status_and_all_that_ask_to_come_again_are_503_or_429() -> None:
    assert {ANSWERS[code][0] for code in get_args(SignatureCode)} == {401}
    for code, (status, title) in ANSWERS.items():
        assert 400 <= status < 600, code
        assert title
        assert code.replace("_", "").isalpha()


def test_a_problem_document_has_the_members_of_rfc_9457_and_a_stable_code() -> None:
    assert json.loads(document(REFUSAL, "c-1")) == {
        "type": "urn:kapsel:problem:overloaded",
        "title": "The receiver has as much to store as it can hold",
        "status": 503,
        "detail": '4096 "wait"',
        "code": "overloaded",
        "correlation_id": "c-1",
    }


def test_a_refusal_on_a_connection_without_request_is_a_whole_http_message() -> None:
    head, _, body = wire(answer(REFUSAL, "c-1"), stays=False).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].startswith("HTTP/1.1 503 ")
    assert {"Connection: close", "Retry-After: 3", f"Content-Length: {len(body)}"} <= set(lines)
    assert body == document(REFUSAL, "c-1")


def test_a_flood_of_refusals_is_logged_in_part_and_told_in_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = [5.0]
    log = RefusalLog(lambda: clock[0])
    for _ in range(A_SECOND + 30):
        log.write("shop/orders", REFUSAL, "c")
    assert len(caplog.records) == A_SECOND
    clock[0] = 6.0
    log.write("shop/orders", REFUSAL, "c-last")
    last = vars(caplog.records[-1])
    assert (last["not_logged"], last["correlation_id"], last["code"]) == ("30", "c-last", "overloaded")
    log.write("shop/orders", REFUSAL, "c")
    assert "not_logged" not in vars(caplog.records[-1])


def test_the_settings_come_from_the_environment(tmp_path: object) -> None:
    settings = load(
        ReceiverSettings,
        {
            "KAPSEL_DATABASE_URL": "postgresql://localhost/kapsel",
            "KAPSEL_SEALING_KEY_FILE": str(tmp_path),
            "KAPSEL_RECEIVER_HOST": "0.0.0.0",
            "KAPSEL_RECEIVER_PORT": "0",
            "KAPSEL_RECEIVER_HEADER_TIMEOUT": "2.5",
            "KAPSEL_RECEIVER_QUEUE_EVENTS": "7",
        },
    )
    assert (settings.receiver_host, settings.receiver_port) == ("0.0.0.0", 0)
    assert (settings.receiver_header_timeout, settings.receiver_queue_events) == (2.5, 7)
    assert settings.receiver_commit_timeout < 5


def test_the_readme_names_every_code_with_its_status() -> None:
    lines = (Path(__file__).parents[3] / "receiver" / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [line.split("|") for line in lines if line.startswith("| `")]
    told = {
        code: int(cell[2]) for cell in cells if cell[2].strip().isdigit() for code in cell[1].replace("`", " ").split()
    }
    assert told == {code: status for code, (status, _) in ANSWERS.items()}

"""The table of reasons: every code that anything can write has words, and somebody whose fault it is."""

import re
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from kapsel_deliverer import outcome, retry
from kapsel_egress import verdicts
from kapsel_store.reasons import FAULTS, REASONS, fault_of, instead, is_among, pattern, patterns_of, reason, shown
from kapsel_store.rows import Backoff
from kapsel_store.schedule import spread

SQL = Path(__file__).parents[3] / "lib" / "kapsel_store" / "sql"
TRIED = {
    *(
        reason
        for module in (outcome, verdicts)
        for kind in vars(module)
        if kind.endswith("Reason")
        for reason in get_args(getattr(module, kind))
    ),
    *(outcome.TimedOut(phase=phase).reason for phase in ("connect", "response")),
}


def written() -> set[str]:
    """Return the reasons that statements and migrations write themselves."""
    texts = [path.read_text(encoding="utf-8") for path in SQL.rglob("*.sql")]
    assigned = re.compile(r"last_reason\s*=\s*(CASE\b.*?\bEND\b|coalesce\(.*?\)|'\w+')", re.DOTALL)
    code = re.compile(r"(?:^|THEN |ELSE |, )'(\w+)'")  # and not what a condition compares with
    return {found for text in texts for one in assigned.findall(text) for found in code.findall(one)}


def test_every_reason_of_a_try_and_of_an_end_is_in_the_table() -> None:
    assert {"dns", "internal", "response_timeout"} <= TRIED
    assert {"never_tried", "circuit_open", "event_gone", "lease_expired", "event_erased"} <= written()
    assert sorted((TRIED | written()) - set(REASONS)) == []


def test_every_reason_has_words_and_a_fault() -> None:
    for code in [*REASONS, *(f"status_{status}" for status in range(100, 1000))]:
        found = reason(code)
        assert found.code == code
        assert found.fault in FAULTS, code
        assert re.fullmatch(r"[a-z].*[^.]", found.means), code
        assert not found.advice or re.fullmatch(r"[A-Z].*[.]", found.advice), code
        assert found.advice or found.fault in ("none", "ours"), code


def test_the_destination_answers_for_what_it_answers() -> None:
    assert {fault_of(f"status_{status}") for status in range(200, 300)} == {"none"}
    assert {fault_of(f"status_{status}") for status in (100, 199, 301, 400, 404, 410, 429, 500, 503, 999)} == {
        "destination"
    }


def test_a_reason_of_a_newer_version_counts_as_ours_until_somebody_looks() -> None:
    assert (reason("brand_new").fault, reason("status_20").fault) == ("ours", "ours")


@pytest.mark.parametrize(
    "backoff",
    [
        Backoff(),
        Backoff(factor=10.0, jitter=1.0, max=timedelta(days=4000)),
        Backoff(type="Schedule", schedule=(timedelta(seconds=1), timedelta(hours=3)), jitter=0.1),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 3, 12, 5000])
def test_a_wait_that_is_drawn_lies_within_what_is_told(backoff: Backoff, number: int) -> None:
    earliest, latest = spread(backoff, number)
    rng = Random(number)
    for _ in range(50):
        assert earliest <= retry.backoff(backoff, number, rng) <= latest


def test_patterns_of_reasons_match_what_they_name_and_nothing_else() -> None:
    def matches(text: str, code: str) -> bool:
        parts = re.split(r"(\\_|_)", text)
        expression = "".join({"\\_": "_", "_": "."}.get(part, re.escape(part)) for part in parts)
        return re.fullmatch(expression, code) is not None

    codes = [*REASONS, *(f"status_{status}" for status in range(100, 1000))]
    for code in REASONS:
        assert [other for other in codes if matches(pattern(code), other)] == [code]
        assert shown(pattern(code)) == code
    assert [code for code in codes if matches(pattern("status_5xx"), code)] == [f"status_{n}" for n in range(500, 600)]
    assert shown(pattern("status_5xx")) == "status_5xx"
    for fault in FAULTS[1:]:
        found = {code for code in codes if any(matches(one, code) for one in patterns_of(fault))}
        assert found == {code for code in codes if fault_of(code) == fault}


def test_what_is_no_reason_is_told_from_what_is_one_and_the_nearest_is_named() -> None:
    assert [code for code in (*REASONS, "status_422", "status_4xx", "status_999") if instead(code) is not None] == []
    for code, meant in (("conect_refused", "connect_refused"), ("status_4x", "status_4xx"), ("tsl", "tls")):
        assert (instead(code) or "").startswith(f"did you mean {meant}? "), code
    for code in ("banana", "", "status_0xx", "status_42", "status_099", "DNS"):
        assert instead(code) is not None, code


def test_a_class_asked_for_means_its_statuses_and_no_others() -> None:
    asked = ["status_4xx", "dns"]
    assert [code for code in ("status_422", "status_503", "dns", "tls", "status_4xx") if is_among(code, asked)] == [
        *("status_422", "dns", "status_4xx"),
    ]

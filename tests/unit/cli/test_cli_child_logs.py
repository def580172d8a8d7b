"""What children write: kept within bounds, and only what a person must see is shown."""

import json
from pathlib import Path

import pytest

from kapsel_cli import child_logs
from kapsel_cli.child_logs import ChildLog, complaint_in


def record(level: str, message: str, **more: str) -> bytes:
    return json.dumps({"level": level, "message": message, **more}).encode() + b"\n"


def test_everything_is_kept_and_only_warnings_and_errors_are_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    log = ChildLog(tmp_path / "receiver.log", shown.append)
    log.feed(record("info", "started") + record("warning", "slow") + record("error", "failed", error="OSError: no"))
    log.close()
    assert shown == ["receiver: slow", "receiver: failed: OSError: no"]
    assert len((tmp_path / "receiver.log").read_text().splitlines()) == 3


def test_lines_are_put_together_wherever_they_were_cut(tmp_path: Path) -> None:
    shown: list[str] = []
    log = ChildLog(tmp_path / "a.log", shown.append)
    for byte in record("error", "köln"):
        log.feed(bytes([byte]))
    log.feed(b"last words")
    log.end()
    log.close()
    assert shown == ["a: köln", "a: last words"]


def test_a_line_that_repeats_is_shown_once(tmp_path: Path) -> None:
    shown: list[str] = []
    log = ChildLog(tmp_path / "a.log", shown.append)
    for _ in range(50):
        log.feed(record("warning", "the database is away"))
    log.close()
    assert shown == ["a: the database is away"]


def test_all_lines_are_shown_if_asked_for(tmp_path: Path) -> None:
    shown: list[str] = []
    log = ChildLog(tmp_path / "a.log", shown.append, show_all=True)
    log.feed(record("info", "started"))
    log.close()
    assert len(shown) == 1
    assert "started" in shown[0]


def test_the_file_does_not_grow_without_bounds(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "a.log", lambda _: None, max_bytes=10_000)
    for _ in range(1000):
        log.feed(record("info", "x" * 100))
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {"a.log", "a.log.1"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 25_000


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "a.log", lambda _: None)
    for _ in range(100):
        log.feed(b"x" * 65_536)
    log.close()
    assert max(map(len, (tmp_path / "a.log").read_bytes().splitlines())) <= child_logs.MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('2026-11-21 12:00:00.000 UTC [1] FATAL:  could not open file "x"', 'could not open file "x"'),
        ("2026-11-21 12:00:00.000 UTC [1] LOG:  checkpoint starting: time", ""),
        ("2026-11-21 12:00:00.000 UTC [1] FATAL:  the database system is starting up", ""),
        ("2026-11-21 12:00:00.000 UTC [1] FATAL:  terminating connection due to administrator command", ""),
        ("Traceback (most recent call last):", ""),
        ('  File "x.py", line 1, in <module>', ""),
        ("ImportError: no module named x", "ImportError: no module named x"),
        ('{"level": "error", "message": "failed\\nhandle: <Handle>"}', "failed"),
        (
            '{"level": "warning", "message": "not delivered: dns", "destination": "shop/orders/billing"}',
            "shop/orders/billing not delivered: dns",
        ),
        ("{not json", "{not json"),
        ("", ""),
    ],
)
def test_what_a_person_sees_of_a_line(line: str, shown: str) -> None:
    assert complaint_in(line) == shown


def test_a_full_disk_is_said_once_and_does_not_stop_the_reading(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    (tmp_path / "a.log").symlink_to("/dev/full")
    shown: list[str] = []
    log = ChildLog(tmp_path / "a.log", shown.append)
    log.feed(record("info", "one") + record("error", "two") + record("info", "three"))
    log.close()
    assert [line.partition(": ")[0] for line in shown] == [f"lines are missing in {tmp_path / 'a.log'}", "a"]

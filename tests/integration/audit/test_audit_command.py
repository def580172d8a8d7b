"""`kapsel audit` as people and scripts run it: exit codes, evidence, interruption, servers that hang."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from public_log import PublicLog, serving

from kapsel_verifier.note import Note
from kapsel_verifier.statements import LogContinuation

KAPSEL = (sys.executable, "-P", "-m", "kapsel_cli", "audit")
DEADLINE = 240
AGE = ("--max-age", "86400")


@pytest.fixture
def log() -> PublicLog:
    made = PublicLog()
    made.grow(600)
    made.publish()
    return made


@pytest.fixture
def url(log: PublicLog) -> Iterator[str]:
    with serving(log) as url:
        yield url


def audit(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*KAPSEL, *arguments, "--state", str(tmp_path / "audit.json")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_what_holds_is_told_and_what_is_too_old_has_its_exit_code(log: PublicLog, url: str, tmp_path: Path) -> None:
    done = audit(tmp_path, url, "--public-key", log.key.encode())
    assert done.returncode == 26
    assert done.stdout.startswith("log.example.com/shop: 600 leaves, signed 2026-01-01 00:00:03 UTC, root ")
    assert "are allowed" in done.stderr
    done = audit(tmp_path, url, "--public-key", log.key.encode(), "--json")
    found = json.loads(done.stdout)
    assert (found["holds"], found["exit_code"], found["tree_size"], found["leaves_read"]) == (False, 26, 600, 0)
    assert found["findings"][0]["class"] == "StaleHead"


def test_the_audit_of_the_log_before_is_read_from_its_state_file(log: PublicLog, url: str, tmp_path: Path) -> None:
    (tmp_path / "audit.json").unlink(missing_ok=True)
    done = audit(tmp_path, url, "--public-key", log.key.encode(), "--continues", str(tmp_path / "none.json"))
    assert done.returncode == 1
    assert "none.json knows of no audit that came to its end" in done.stderr
    old = PublicLog("log.example.com/old")
    with serving(old) as prefix:
        assert audit(tmp_path, prefix, "--public-key", old.key.encode()).returncode == 26
    (tmp_path / "audit.json").rename(tmp_path / "old.json")
    new = PublicLog("log.example.com/new")
    statement = LogContinuation(
        checkpoint=old.note.encode(), origin=new.origin, reason="moved", salt=bytes(32), timestamp=new.date_ms
    )
    new.add([statement.encode()])
    new.publish()
    with serving(new) as prefix:
        done = audit(tmp_path, prefix, "--public-key", new.key.encode(), "--continues", str(tmp_path / "old.json"))
    assert f"which ended with 0 leaves: as {tmp_path / 'old.json'} has it" in done.stdout


def test_a_split_view_is_written_down_as_two_signed_heads(log: PublicLog, url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.txt"
    policy.write_text(f"log {log.key.encode()}\nquorum none\n")
    received = tmp_path / "received.txt"
    other = PublicLog()
    other._random.seed(99)
    other.grow(600)
    received.write_text(other.publish())
    done = audit(tmp_path, url, "--policy", str(policy), "--checkpoint", str(received), "--json", *AGE)
    assert done.returncode == 32
    found = json.loads(done.stdout)
    heads = [Note.parse(Path(path).read_bytes()) for path in found["evidence"]]
    assert len(heads) == 2
    assert all(head.verify([log.key]) for head in heads)
    assert heads[0].text != heads[1].text


def test_without_a_key_of_one_s_own_nothing_is_audited(url: str, tmp_path: Path) -> None:
    done = audit(tmp_path, url)
    assert done.returncode == 1
    assert "no key is trusted" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--public-key", "nonsense"), "the public key"),
        (("--keys", "/nonexistent"), "cannot be read"),
        (("--policy", "/nonexistent"), "cannot be read"),
    ],
)
def test_what_was_given_wrongly_is_said(url: str, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = audit(tmp_path, url, *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_state_is_refused_and_not_begun_anew(log: PublicLog, url: str, tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text("{}")
    done = audit(tmp_path, url, "--public-key", log.key.encode())
    assert done.returncode == 1
    assert "is damaged" in done.stderr


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = audit(tmp_path, "http://127.0.0.1:1", "--public-key", "00" * 32)
    assert done.returncode == 4
    assert "cannot be read" in done.stderr


def test_a_server_that_sends_without_end_is_cut_off(tmp_path: Path) -> None:
    """A gigabyte is announced, and it never stops; the auditor reads no more than a checkpoint may have."""
    sent = 0

    def flood(listener: socket.socket) -> None:
        nonlocal sent
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                try:
                    while sent < 1_000_000_000:
                        sent += connection.send(b"x" * 65536)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=flood, args=(listener,), daemon=True)
        thread.start()
        done = audit(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", "--public-key", "00" * 32)
    assert done.returncode == 4
    assert "sends more than 262144 bytes" in done.stderr
    assert sent < 50_000_000


def test_ctrl_c_keeps_how_far_it_came_and_the_next_one_goes_on(tmp_path: Path) -> None:
    log = PublicLog()
    log.grow(40_000)
    log.publish()
    gate = threading.Event()
    stopped_at = "tile/entries/120"

    def hold() -> bytes:
        gate.wait(DEADLINE)
        del log.overrides[stopped_at]
        answer = log.truth(stopped_at)
        assert isinstance(answer, bytes)
        return answer

    log.overrides[stopped_at] = hold
    with serving(log) as url:
        arguments = [*KAPSEL, url, "--public-key", log.key.encode(), "--state", str(tmp_path / "audit.json"), *AGE]
        first = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while stopped_at not in log.asked:
            assert first.poll() is None
            threading.Event().wait(0.05)
        first.send_signal(signal.SIGINT)
        _, told = first.communicate(timeout=DEADLINE)
        gate.set()
        assert first.returncode == 130, told
        assert "Traceback" not in told
        done = audit(tmp_path, url, "--public-key", log.key.encode(), "--json", "--max-age", "86400")
    found = json.loads(done.stdout)
    assert [one["class"] for one in found["findings"]] in ([], ["StaleHead"])
    assert found["tree_size"] == 40_000
    assert 0 < found["leaves_read"] < 40_000


def test_it_follows_a_log_until_that_cheats(log: PublicLog, url: str, tmp_path: Path) -> None:
    arguments = [*KAPSEL, url, "--public-key", log.key.encode(), "--state", str(tmp_path / "audit.json")]
    following = subprocess.Popen(
        [*arguments, "--follow", "--interval", "0.2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    sizes = []
    for line in following.stdout:
        found = json.loads(line)
        sizes.append(found["tree_size"])
        if found["exit_code"] == 32:
            break
        if sizes[-1] == 600 and sizes.count(600) == 2:
            log.grow(10)
            log.publish()
        if sizes[-1] == 610:
            log.publish(root=bytes(32))
    _, _ = following.communicate(timeout=DEADLINE)
    assert following.returncode == 32
    assert 610 in sizes


def test_a_server_that_puts_off_is_asked_again_when_it_says(log: PublicLog, url: str, tmp_path: Path) -> None:
    """The whole of kapsel's public side has one rate for all who come without a token."""
    puts_off = [429, 429, 429, 429, 429, 429]
    log.retry_after = "0"
    log.overrides["tile/entries/001"] = lambda: puts_off.pop() if puts_off else log.truth("tile/entries/001")
    assert audit(tmp_path, url, "--public-key", log.key.encode(), *AGE).returncode in (0, 26)
    assert puts_off == []


def test_a_token_is_shown_to_the_log_and_to_no_witness(log: PublicLog, url: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    views = PublicLog("views")
    with serving(views) as witness:
        audit(tmp_path, url, "--public-key", log.key.encode(), "--token-file", str(token), "--witness", witness)
    assert set(log.tokens) == {"Bearer secret-token"}
    assert views.tokens == [None]

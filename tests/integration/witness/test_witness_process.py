"""`kapsel witness` as a process: its HTTP answers, and that it never goes back, whatever ends it."""

import json
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from http.client import HTTPException

import pytest
from witnessing import DEADLINE, KAPSEL, SmallLog, WitnessProcess, http

from kapsel_verifier import cosignature
from kapsel_verifier.note import Checkpoint, Note, VerifierKey

Make = Callable[[str], WitnessProcess]
NAME = "witness.example/w1"


def hashed(origin: str) -> str:
    return sha256(origin.encode()).hexdigest()


def test_heads_that_extend_are_cosigned_and_what_was_seen_can_be_read(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    assert one.view(hashed(small_log.origin)).status == 404
    for old, new in ((0, 3), (3, 3), (3, 300)):
        answer = one.ask(small_log.request(old, new))
        assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
        note = Note.parse(small_log.checkpoint(new) + answer.body)
        assert [found.name for found in cosignature.find(note, [one.key])] == [NAME]
    seen = Note.parse(one.view(hashed(small_log.origin)).body)
    assert seen.verify([small_log.key])
    assert cosignature.find(seen, [one.key])
    assert Checkpoint.parse(seen.text).tree_size == 300
    assert one.end()[0] == 0


def test_each_refusal_has_its_status(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    assert one.ask(small_log.request(0, 5)).status == 200
    stale = one.ask(small_log.request(3, 9))
    assert (stale.status, stale.body, stale.content_type) == (409, "5\n", "text/x.tlog.size")
    assert one.ask(b"old five\n").status == 400
    assert one.ask(b"old 9\n\n" + small_log.checkpoint(5).encode()).status == 400
    assert one.ask(SmallLog("log.example/other").request(0, 1)).status == 404
    assert one.ask(SmallLog(seed=bytes([1]) * 32).request(0, 1)).status == 403
    assert one.ask(small_log.request(5, 9, "other")).status == 422
    assert one.ask(small_log.request(5, 5, "other")).status == 422
    assert one.ask(b"x" * 300_000).status == 413
    assert http("GET", f"{one.url}/add-checkpoint").status == 405
    assert http("GET", f"{one.url}/{'0' * 64}/checkpoint").status == 404
    assert one.ask(small_log.request(5, 9)).status == 200


def test_two_heads_of_one_size_are_kept_as_proof_and_counted(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    one.ask(small_log.request(0, 5))
    for _ in range(3):
        one.ask(small_log.request(5, 5, "other"))
    assert 'witness_forks_total{origin="log.example/shop"} 3.0' in one.metrics()
    kept = sorted((one.directory / "evidence").iterdir())
    assert [path.name.rpartition("-")[2] for path in kept] == ["cosigned.txt", "refused.txt"]
    heads = [Note.parse(path.read_bytes()) for path in kept]
    assert all(head.verify([small_log.key]) for head in heads)
    first, second = (Checkpoint.parse(head.text) for head in heads)
    assert first.tree_size == second.tree_size
    assert first.root_hash != second.root_hash


def test_it_survives_kill_9_at_any_moment_and_never_cosigns_two_histories(witness: Make, small_log: SmallLog) -> None:
    """Whatever was answered is remembered by the next start; a fork from below it is refused every time."""
    one = witness(NAME)
    rng = random.Random(20261121)
    answered = 0
    for _ in range(6):
        one.start([small_log.key])
        view = one.view(hashed(small_log.origin))
        known = Checkpoint.parse(Note.parse(view.body).text).tree_size if view.status == 200 else 0
        assert known >= answered, "what it answered for was forgotten"
        if known:  # three at the least, so that the other history is another one
            fork = one.ask(small_log.request(0, known, "fork"))
            assert (fork.status, fork.body) == (409, f"{known}\n")
            assert one.ask(small_log.request(known, known + 2, "fork")).status == 422
        killer = threading.Timer(rng.uniform(0.0, 0.2), one.kill)
        size = known
        try:
            while True:
                assert one.ask(small_log.request(size, size + 1)).status == 200
                size += 1
                answered = size
                if size == known + 3:
                    killer.start()
        except (OSError, HTTPException):
            pass  # killed, before an answer or within one
        killer.join()
    assert answered >= 18


def test_a_second_one_in_the_same_directory_is_refused(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    command = [*KAPSEL, "witness", "--directory", str(one.directory), "--listen", "127.0.0.1:0"]
    second = subprocess.run(
        [*command, "--log", small_log.key.encode()], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert second.returncode == 2
    assert "another witness runs" in second.stderr
    assert one.ask(small_log.request(0, 3)).status == 200


def test_it_does_not_start_over_a_state_it_lost_and_says_what_to_do(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    one.ask(small_log.request(0, 3))
    one.end()
    (one.directory / "state.json").unlink()
    done = subprocess.run(
        [*KAPSEL, "witness", "--directory", str(one.directory), "--log", small_log.key.encode()],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "put its newest copy back" in done.stderr


def test_it_does_not_vouch_for_a_log_with_its_own_key(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    own = VerifierKey("log.example/own", one.key.public_key)
    done = subprocess.run(
        [*KAPSEL, "witness", "--directory", str(one.directory), "--log", small_log.key.encode(), "--log", own.encode()],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "The log log.example/own has the key of this witness" in done.stderr


def test_it_cosigns_nothing_it_cannot_remember(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    assert one.ask(small_log.request(0, 3)).status == 200
    (one.directory / "state.json.new").mkdir()  # as a full disk would, the next write fails
    refused = one.ask(small_log.request(3, 5))
    assert refused.status == 500
    assert "\u2014" not in refused.body
    (one.directory / "state.json.new").rmdir()
    assert one.ask(small_log.request(3, 5)).status == 200


def test_its_metrics_say_what_it_saw(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    one.start([small_log.key])
    before = int(time.time())
    one.ask(small_log.request(0, 3))
    one.ask(small_log.request(0, 5))
    metrics = one.metrics()
    assert 'witness_requests_total{result="cosigned"} 1.0' in metrics
    assert 'witness_requests_total{result="stale"} 1.0' in metrics
    assert 'witness_tree_size{origin="log.example/shop"} 3.0' in metrics
    [said] = re.findall(
        r'^witness_cosigned_timestamp_seconds\{origin="log.example/shop"\} (.+)$', metrics, re.MULTILINE
    )
    assert before <= float(said) <= time.time()
    assert json.loads(http("GET", f"{one.health_url}/health/ready").body)["status"] == "ready"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "there is no log to cosign"),
        (("--log", "nonsense"), "The key of a log is not usable"),
        (("--logs", "/nonexistent"), "No such file"),
        (("--name", "witness.example/w9", "--log", "x"), "is called"),
        (("--listen", "nowhere"), "HOST:PORT"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(witness: Make, options: tuple[str, ...], says: str) -> None:
    one = witness(NAME)
    done = subprocess.run(
        [*KAPSEL, "witness", "--directory", str(one.directory), *options],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_as_a_component_it_takes_its_settings_from_variables(witness: Make, small_log: SmallLog) -> None:
    one = witness(NAME)
    keys = one.directory / "logs.txt"
    keys.write_text(f"# the shop\n{small_log.key.encode()}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "KAPSEL_WITNESS_DIRECTORY": str(one.directory),
        "KAPSEL_WITNESS_LOGS_FILE": str(keys),
        "KAPSEL_WITNESS_PORT": "0",
    }
    one.popen = subprocess.Popen([*KAPSEL, "run", "witness"], env=environment, stderr=subprocess.PIPE, text=True)
    assert one.popen.stderr is not None
    for line in one.popen.stderr:
        told = json.loads(line)
        if told["message"] == "witnessing":
            one.url = f"http://127.0.0.1:{told['port']}"
            break
    assert one.ask(small_log.request(0, 4)).status == 200

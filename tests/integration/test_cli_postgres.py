"""The embedded Postgres: data outlives stops, crashes and the death of whoever started it."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from kapsel_cli import spare_wal, unprivileged
from kapsel_cli.errors import DataInUseError
from kapsel_cli.postgres import EmbeddedPostgres


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not pytest's tmp_path: another user than root, which Postgres runs as, may not enter that."""
    with tempfile.TemporaryDirectory(prefix="kapsel-test-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """One server for the tests that leave it running."""
    with tempfile.TemporaryDirectory(prefix="kapsel-test-") as directory:
        started = EmbeddedPostgres(Path(directory))
        started.start()
        yield started
        started.stop()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, f"not within 240 s: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ask(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_the_database_exists_is_durable_and_listens_on_no_tcp_port(server: EmbeddedPostgres) -> None:
    assert await ask(server, "SELECT current_database()") == "kapsel"
    assert await ask(server, "SHOW fsync") == "on"
    assert await ask(server, "SHOW synchronous_commit") == "on"
    assert await ask(server, "SHOW server_encoding") == "UTF8"
    assert await ask(server, "SHOW listen_addresses") == ""


async def test_every_setting_is_in_force(server: EmbeddedPostgres) -> None:
    assert await ask(server, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == 0
    assert await ask(server, "SHOW shared_buffers") == "256MB"
    assert await ask(server, "SHOW max_wal_size") == "2GB"


async def test_committed_rows_survive_a_stop_and_a_kill(server: EmbeddedPostgres) -> None:
    await ask(server, "CREATE TABLE kept (id int)")
    await ask(server, "INSERT INTO kept VALUES (1)")
    server.stop()
    server.start()
    await ask(server, "INSERT INTO kept VALUES (2)")
    server.kill()
    server.start()
    assert await ask(server, "SELECT array_agg(id ORDER BY id) FROM kept") == [1, 2]


async def test_a_new_log_grows_into_segments_that_were_laid_out_for_it(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, spare_wal=True)
    server.start()
    try:
        written = data_dir / "postgres" / "pg_wal"
        laid = {file.name: file.stat().st_ino for file in written.iterdir() if file.is_file()}
        assert len(laid) == 1 + spare_wal.COUNT
        await ask(server, "CREATE TABLE much AS SELECT repeat(md5(i::text), 30) AS it FROM generate_series(1, 50000) i")
        assert str(await ask(server, "SELECT pg_walfile_name(pg_current_wal_lsn())")) > min(laid)
        assert {file.name: file.stat().st_ino for file in written.iterdir() if file.is_file()} == laid
        server.kill()
        server.start()
        assert await ask(server, "SELECT count(*) FROM much") == 50000
    finally:
        server.stop()


def test_no_segment_is_left_where_there_is_no_room_for_all(tmp_path: Path) -> None:
    def refuse_the_third(path: Path) -> None:
        if len(list(path.parent.iterdir())) == 3:
            raise OSError(errno.ENOSPC, "no space left")

    assert spare_wal.lay_out(tmp_path / "wal", refuse_the_third, threading.Event()) == []
    assert list((tmp_path / "wal").iterdir()) == []


def test_no_further_segment_is_begun_once_the_database_is_given_up(tmp_path: Path) -> None:
    given_up = threading.Event()
    assert len(spare_wal.lay_out(tmp_path / "wal", lambda _: given_up.set(), given_up)) == 1


def test_a_pid_file_that_names_a_living_stranger_does_not_hinder_the_start(
    server: EmbeddedPostgres,
) -> None:
    server.kill()
    pid_file = server.data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    owner = (server.data_dir / "postgres").stat()
    stranger = subprocess.Popen(["/bin/sleep", "600"], user=owner.st_uid, group=owner.st_gid)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        server.start()
        assert is_alive(server.pid)
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_long_data_directory_gets_its_socket_elsewhere(data_dir: Path) -> None:
    deep = data_dir / ("d" * 90)
    server = EmbeddedPostgres(deep)
    server.start()
    try:
        assert str(deep) not in server.url
        assert await ask(server, "SELECT 1") == 1
        elsewhere = Path(parse_qs(urlsplit(server.url).query)["host"][0])
        assert elsewhere.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not elsewhere.exists()


SUPERVISOR = """
import sys, time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from kapsel_cli.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def supervisor_of(data_dir: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a process that starts Postgres; return it and Postgres' pid."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_postgres_ends_when_its_supervisor_is_killed(data_dir: Path) -> None:
    supervisor, postgres = supervisor_of(data_dir)
    kill(supervisor)
    wait_until(lambda: not is_alive(postgres), "Postgres is gone")


async def test_postgres_left_over_without_its_guard_is_ended_by_the_next_start(data_dir: Path) -> None:
    supervisor, postgres = supervisor_of(data_dir)
    guard = int((data_dir / "family.lock").read_text())
    os.kill(guard, signal.SIGKILL)
    kill(supervisor)
    assert is_alive(postgres)
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        wait_until(lambda: not is_alive(postgres), "the left-over Postgres is gone")
        assert await ask(server, "SELECT 1") == 1
    finally:
        server.stop()


def test_left_over_processes_that_cannot_be_ended_are_named(data_dir: Path) -> None:
    """A process outside the recorded group that holds the family's lock is nothing we may kill."""
    import fcntl

    with (data_dir / "family.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataInUseError, match=str(data_dir)):
            EmbeddedPostgres(data_dir).start()


def test_root_hands_the_programs_to_the_user_that_postgres_runs_as(data_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs Postgres as somebody else")
    programs = data_dir / "programs"
    (programs / "bin").mkdir(parents=True)
    (programs / "bin" / "postgres").write_text("")
    (programs / "bin" / "postgres").chmod(0o700)
    programs.chmod(0o700)
    user = unprivileged.user()
    opened = user.let_through(programs / "bin" / "postgres")
    user.let_run(programs / "bin" / "postgres")
    assert programs in opened
    command = ["/bin/cat", str(programs / "bin" / "postgres")]
    done = subprocess.run(command, user=user.uid, group=user.gid, extra_groups=[], check=False)
    assert done.returncode == 0

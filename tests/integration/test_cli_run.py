"""`kapsel run`: what the containers of a pod execute, as processes of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest
from ports import own_ports

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store.migrate import Migration, known, migrate

KAPSEL = (sys.executable, "-P", "-m", "kapsel_cli", "run")


def run(component: str, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KAPSEL, component, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@contextlib.contextmanager
def running(component: str, environment: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {"PATH": os.environ["PATH"], **environment}
    command = [*KAPSEL, component, *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_unknown_component_is_answered_with_those_there_are() -> None:
    done = run("reciever", {})
    assert done.returncode == 2
    assert "'receiver', 'deliverer'" in done.stderr


def test_a_component_takes_the_place_of_the_command_and_refuses_settings_that_are_not_its_own() -> None:
    done = run("receiver", {"KAPSEL_RECIEVER_PORT": "1"})
    assert done.returncode == 2
    assert "did you mean KAPSEL_RECEIVER_PORT?" in done.stderr


async def test_migrate_brings_an_empty_database_up_to_date_and_says_so_again(postgres: EmbeddedPostgres) -> None:
    environment = {"KAPSEL_DATABASE_URL": postgres.url, "KAPSEL_DATABASE_SCHEMA": "test_run_migrate"}
    first, second = run("migrate", environment), run("migrate", environment)
    await drop(postgres.url, "test_run_migrate")
    assert (first.returncode, second.returncode) == (0, 0)
    assert all(migration.name in first.stderr for migration in known())
    assert "partitions made: events_" in first.stderr
    assert "schema test_run_migrate: was current already" in second.stderr


async def test_a_schema_that_is_newer_is_left_alone_and_named(postgres: EmbeddedPostgres) -> None:
    newer = Migration(number=9999, name="9999_later.sql", sql="SELECT 1")
    await migrate(postgres.url, schema="test_run_newer", migrations=(*known(), newer))
    done = run("migrate", {"KAPSEL_DATABASE_URL": postgres.url, "KAPSEL_DATABASE_SCHEMA": "test_run_newer"})
    await drop(postgres.url, "test_run_newer")
    assert done.returncode == 1
    assert "9999_later.sql" in done.stderr
    assert "upgrade this one" in done.stderr


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("postgresql://u:hidden@127.0.0.1:1/kapsel", 1, "the database was away for 0.2 s"),
        ("postgresql://u:hidden@nowhere.invalid/kapsel", 1, "the database was away for 0.2 s"),
        ("127.0.0.1:5432", 2, "KAPSEL_DATABASE_URL cannot be used"),
        ("", 2, "KAPSEL_DATABASE_URL is empty"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_sentence_without_the_password(
    url: str, code: int, words: str
) -> None:
    done = run("migrate", {"KAPSEL_DATABASE_URL": url, "KAPSEL_MIGRATE_TIMEOUT": "0.2"})
    assert done.returncode == code
    assert words in done.stderr.splitlines()[-1]
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_database_that_does_not_exist_is_not_waited_for(postgres: EmbeddedPostgres) -> None:
    done = run("migrate", {"KAPSEL_DATABASE_URL": postgres.url.replace("///kapsel?", "///absent?")})
    assert done.returncode == 1
    assert 'database "absent" does not exist' in done.stderr


async def test_postgres_asks_for_the_password_and_keeps_the_data_over_a_restart_with_a_new_one() -> None:
    with tempfile.TemporaryDirectory(prefix="kapsel-test-") as directory, own_ports(1) as (port,):
        password = Path(directory) / "password"
        environment = {
            "KAPSEL_POSTGRES_DATA_DIR": str(Path(directory) / "data"),
            "KAPSEL_POSTGRES_HOST": "127.0.0.1",
            "KAPSEL_POSTGRES_PORT": str(port),
            "KAPSEL_POSTGRES_PASSWORD_FILE": str(password),
        }
        password.write_text("it's one\n")
        with running("postgres", environment) as process:
            await wait_until_ready(process)
            connection = await connect(port, "it's one")
            await connection.execute("CREATE TABLE kept (id int)")
            with pytest.raises(asyncpg.InvalidPasswordError):
                await connect(port, "guessed")
            await terminate(process)  # although a client is connected
        password.write_text("another\n")
        # As a cluster does that opens a volume to the group of the pod.
        (Path(directory) / "data" / "postgres").chmod(0o770)
        with running("postgres", environment) as process:
            await wait_until_ready(process)
            with pytest.raises(asyncpg.InvalidPasswordError):
                await connect(port, "it's one")
            connection = await connect(port, "another")
            assert await connection.fetchval("SELECT count(*) FROM kept") == 0
            await connection.close()
            await terminate(process)


def test_postgres_without_a_password_does_not_start() -> None:
    done = run("postgres", {"KAPSEL_POSTGRES_DATA_DIR": "/nonexistent"})
    assert done.returncode == 2
    assert "KAPSEL_POSTGRES_PASSWORD is missing" in done.stderr


def test_the_destination_refuses_a_webhook_twice_and_ends_at_once_when_told() -> None:
    with own_ports(1) as (port,), running("destination", {}, "--port", str(port)) as process:
        assert [post(port) for _ in range(3)] == [500, 500, 200]
        process.send_signal(signal.SIGTERM)
        assert process.wait(240) == 0


def test_a_destination_whose_port_is_taken_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("destination", {}, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr


async def connect(port: int, password: str) -> asyncpg.Connection:
    return await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", password=password, database="kapsel")


async def drop(url: str, schema: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SET client_min_messages = warning")
    await connection.execute(f"DROP SCHEMA {schema} CASCADE")
    await connection.close()


async def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "database system is ready to accept connections" in line:
            return
    raise AssertionError("Postgres ended before it was ready")


async def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(240) == 0


def post(port: int) -> int:
    """Post one webhook, once somebody listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/billing", b"{}", {"webhook-id": "one"})
    while True:
        try:
            return int(urllib.request.urlopen(request, timeout=240).status)
        except urllib.error.HTTPError as error:
            error.close()
            return int(error.code)
        except urllib.error.URLError:
            continue

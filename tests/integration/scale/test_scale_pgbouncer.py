"""PgBouncer in transaction mode before the real Postgres: all works through it, and nothing leaks between roles."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg
import pytest
from traffic.accounts import account, settled

from kapsel_cli.__main__ import main
from kapsel_store import database as store_database
from kapsel_store.errors import DatabaseURLError

WEBHOOKS = 120
SERVER_CONNECTIONS = 4  # fewer than the processes open, so that they are passed from hand to hand


@dataclass
class Bouncer:
    """A running PgBouncer, and the URL that leads through it."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture
def bouncer(database) -> Iterator[Bouncer]:
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        assert not os.environ.get("CI"), "PgBouncer is missing: apt-get install pgbouncer"
        pytest.skip("PgBouncer is missing: apt-get install pgbouncer, or brew install pgbouncer")
    # Sockets have short paths, and those of pytest are long.
    directory = Path(tempfile.mkdtemp(prefix="kapsel-bouncer-"))
    parts = urlsplit(database.url)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    log = directory / "pgbouncer.log"
    (directory / "users.txt").write_text('"postgres" ""\n')
    (directory / "pgbouncer.ini").write_text(
        f"""[databases]
kapsel = host={asked["host"]} port={asked["port"]} dbname={parts.path[1:]} user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = 6432
auth_type = any
auth_file = {directory}/users.txt
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_client_conn = 200
logfile = {log}
"""
    )
    command, options = [program, str(directory / "pgbouncer.ini")], {}
    if os.getuid() == 0:  # it refuses to run as root, and the socket of Postgres is its user's alone
        owner = Path(asked["host"]).stat()
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    query = urlencode({"host": str(directory), "port": "6432", "user": "postgres"})
    yield Bouncer(url=f"postgresql:///kapsel?{query}", process=process, log=log)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()
    process.wait()
    shutil.rmtree(directory)


@pytest.fixture
async def answering(bouncer: Bouncer) -> Bouncer:
    """A PgBouncer that takes connections."""
    place = parse_qs(urlsplit(bouncer.url).query)["host"][0] + "/.s.PGSQL.6432"
    async with asyncio.timeout(120):
        while True:
            assert bouncer.process.poll() is None, bouncer.log.read_text()
            with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(place)
                return bouncer
            await asyncio.sleep(0.02)


async def test_webhooks_come_in_and_go_out_through_it_and_are_proven(
    answering, database, tmp_path, destination, planes, until
) -> None:
    plane = planes(
        url=answering.url, direct_url=database.url, schema=database.schema, directory=tmp_path, destination=destination
    )
    await plane.configure(datetime.now(UTC))
    connection = await plane.connection()
    try:
        receivers = [await plane.start("receiver", number) for number in range(2)]
        for number in range(2):
            await plane.start("deliverer", number)
        await plane.start("attestor")
        producers = [await plane.producer(receiver) for receiver in receivers]
        await asyncio.gather(*(one.run(range(WEBHOOKS)) for one in producers))

        accepted = producers[0].accepted
        assert accepted == producers[1].accepted
        await settled(connection)
        await account(connection, accepted, destination)
        assert await connection.fetchval("SELECT count(*) FROM events") == WEBHOOKS
        assert not plane.faults()
    finally:
        await connection.close()
        await plane.stop()


async def test_the_role_and_the_schema_of_one_process_never_reach_another(answering, database) -> None:
    async def ask(component: str) -> set[tuple[str, str, str]]:
        pool = store_database.connect(
            answering.url,
            role=f"kapsel_{component}",
            schema=database.schema if component != "console" else "public",
            size=4,
            component=component,
            pooled=True,
        )
        async with pool:

            async def once() -> tuple[str, str, str]:
                async with pool.acquire() as connection:
                    row = await connection.fetchrow(
                        "SELECT current_user::text, current_schema()::text, current_setting('synchronous_commit')"
                    )
                    return tuple(row)

            return set(await asyncio.gather(*(once() for _ in range(50))))

    components = ("receiver", "deliverer", "attestor", "console")
    found = await asyncio.gather(*(ask(component) for component in components))
    for component, seen in zip(components, found, strict=True):
        assert seen == {(f"kapsel_{component}", "public" if component == "console" else database.schema, "on")}


async def test_what_a_transaction_sets_ends_with_it(answering, database) -> None:
    pool = store_database.connect(
        answering.url, role="kapsel_receiver", schema=database.schema, size=1, component="receiver", pooled=True
    )
    async with pool, pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("SELECT set_config('statement_timeout', '1234', true)")
            async with connection.transaction():
                assert await connection.fetchval("SHOW statement_timeout") == "1234ms"
        assert await connection.fetchval("SHOW statement_timeout") != "1234ms"
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("SELECT 1 / $1::int", 0)
        # A failed statement leaves no transaction open behind it.
        assert await connection.fetchval("SELECT current_user::text") == "kapsel_receiver"


async def test_a_pooler_that_nobody_spoke_of_is_named_with_what_to_do(answering, database) -> None:
    pool = store_database.connect(
        answering.url, role="kapsel_receiver", schema=database.schema, size=1, component="receiver"
    )
    async with pool:
        with pytest.raises(DatabaseURLError, match="KAPSEL_DATABASE_DIRECT_URL"):
            await pool.fetchval("SELECT 1")


async def test_kapsel_up_runs_through_it_and_besides_it(answering, database, tmp_path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "relay.json").write_text(
        '{"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": {"name": "main"}}'
    )
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "kapsel_cli", "up", str(tmp_path / "manifests"), "--port", "0"),
        *("--data-dir", str(tmp_path / "data"), "--database-url", answering.url, "--database-direct-url", database.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert up.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(120):
            while b"Ctrl-C" not in said:
                line = await up.stdout.readline()
                assert line, said.decode()
                said += line
        assert b"all processes are ready" in said
        assert "login attempt: db=kapsel user=postgres" in answering.log.read_text()
    finally:
        up.send_signal(signal.SIGINT)
        await up.communicate()
    assert up.returncode == 0


async def test_what_leads_besides_a_pooler_is_of_no_use_without_it(tmp_path, capsys) -> None:
    assert main(("up", str(tmp_path), "--database-direct-url", "postgresql://a@b/c")) == 1
    assert "Name the URL through the pooler with --database-url" in capsys.readouterr().err

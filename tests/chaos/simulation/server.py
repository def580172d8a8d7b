"""The Postgres of one worker: an embedded server, with a database that each run gets anew, the same to the byte."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store.migrate import migrate
from simulation.wire import Control

# The server never dies here, and nothing is kept: what a crash of its own would cost is for tests/acceptance.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "'1GB'",
    "idle_in_transaction_session_timeout": "0",
}

# now() and clock_timestamp() of our schema stand before those of pg_catalog in the search path of every session that
# the proxy lets in. They read what the proxy sets in the session before it asks anything.
_CLOCK = """
CREATE FUNCTION now() RETURNS timestamptz STABLE LANGUAGE sql
    AS $$ SELECT 'epoch'::timestamptz + current_setting('chaos.now')::bigint * interval '1 microsecond' $$;
CREATE FUNCTION clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT kapsel.now()';
DO $$
DECLARE found record;
BEGIN
    FOR found IN
        SELECT a.attrelid::regclass AS place, a.attname AS name FROM pg_attrdef d
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum JOIN pg_class c ON c.oid = d.adrelid
        WHERE c.relnamespace = 'kapsel'::regnamespace AND pg_get_expr(d.adbin, d.adrelid) = 'pg_catalog.now()'
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT kapsel.now()', found.place, found.name);
    END LOOP;
END $$;
"""


class Server:
    """See above."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")
        self.place = Path(tempfile.mkdtemp(prefix="chaos-", dir=shared if shared.is_dir() else None))
        self.place.chmod(0o755)
        self._postgres = EmbeddedPostgres(self.place / "data")

    @property
    def socket_directory(self) -> Path:
        return self._postgres._socket_directory()

    def cpu(self) -> float:
        """Return the seconds of CPU that the server and the backends that have ended took."""
        fields = Path(f"/proc/{self._postgres.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> "Server":
        self._postgres.start()
        control = Control(self.socket_directory, "kapsel")
        for name, value in _SETTINGS.items():
            control.query(f"ALTER SYSTEM SET {name} = {value}")
        control.query("SELECT pg_reload_conf()")
        control.close()
        asyncio.run(migrate(self._postgres.url, schema="kapsel"))
        control = Control(self.socket_directory, "kapsel")
        control.query(_CLOCK)
        control.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._postgres.stop()
        shutil.rmtree(self.place, ignore_errors=True)

    def renew(self) -> str:
        """Make the database of a run from the template, and end whoever is left in the last; return its name."""
        control = Control(self.socket_directory, "template1")
        control.query("DROP DATABASE IF EXISTS chaos WITH (FORCE)")
        control.query("CREATE DATABASE chaos TEMPLATE kapsel")
        control.close()
        return "chaos"

"""The Postgres of all runs: one embedded server, and a database for each worker that is emptied between runs."""

import asyncio
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

# now() of our schema stands before the one of pg_catalog in the search path of every session that the proxy lets in.
_CLOCK = """
CREATE SEQUENCE chaos_clock MINVALUE 0;
CREATE FUNCTION now() RETURNS timestamptz STABLE LANGUAGE sql
    AS $$ SELECT 'epoch'::timestamptz + last_value * interval '1 microsecond' FROM kapsel.chaos_clock $$;
GRANT SELECT ON SEQUENCE chaos_clock TO PUBLIC;
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

_EMPTY = """
SET session_replication_role = replica;
DO $$ BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(oid::regclass::text, ', ') || ' RESTART IDENTITY' FROM pg_class
             WHERE relnamespace = 'kapsel'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
             AND relname NOT LIKE '%migration%');
END $$;
SET session_replication_role = origin;
SELECT setval('chaos_clock', 0);
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

    def make(self, name: str) -> None:
        """Make a database of its own for one worker."""
        control = Control(self.socket_directory, "postgres" if name == "kapsel" else "template1")
        control.query(f"CREATE DATABASE {name} TEMPLATE kapsel")
        control.close()

    def empty(self, name: str) -> None:
        """Empty a worker's database, once nobody of the last run is left in it."""
        control = Control(self.socket_directory, name)
        while control.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ):
            control.query("SELECT pg_sleep(0.005)")
        control.query(_EMPTY)
        control.close()

-- name: lock
-- Two migrations at once wait for each other; the second finds nothing to do.
SELECT pg_advisory_xact_lock(hashtext($1 || '/migrate'))

-- name: lock_timeout
-- Everybody who waits for a lock waits behind whoever waits longer. So a migration gives up before the second is over after
-- which Postgres looks for deadlocks, and is tried again.
SELECT set_config('lock_timeout', '500ms', true)

-- name: ledger
CREATE TABLE IF NOT EXISTS migrations (
    number     int PRIMARY KEY,
    name       text NOT NULL,
    checksum   bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: applied
SELECT number, name, checksum FROM migrations ORDER BY number

-- name: done
INSERT INTO migrations (number, name, checksum) VALUES ($1, $2, $3)

-- name: may_make_roles
SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user

-- name: roles_exist
SELECT count(*) = 4 FROM pg_roles WHERE rolname IN ('kapsel_receiver', 'kapsel_deliverer', 'kapsel_attestor', 'kapsel_console')

-- name: load
SELECT destination_id, state, window_started_at, attempts, failures, open_until, probes_left, probe_successes,
       disabled_at, disabled_reason, recovering_since, failing_since, warned_at, now() AS read_at
FROM circuits WHERE destination_id = ANY ($1::uuid[])

-- name: ensure
INSERT INTO circuits (destination_id) VALUES ($1) ON CONFLICT DO NOTHING

-- name: lock
-- Who locks has a transaction id already, so asking for it costs nothing.
SELECT destination_id, state, window_started_at, attempts, failures, open_until, probes_left, probe_successes,
       disabled_at, disabled_reason, recovering_since, failing_since, warned_at, now() AS read_at,
       pg_current_xact_id()::text AS transaction_id
FROM circuits WHERE destination_id = $1 FOR UPDATE

-- name: outcome
-- What became of a transaction whose COMMIT was not answered.
SELECT pg_xact_status($1::text::xid8)

-- name: write
UPDATE circuits SET state = $2, window_started_at = $3, attempts = $4, failures = $5, open_until = $6, probes_left = $7,
    probe_successes = $8, disabled_at = $9, disabled_reason = $10,
    recovering_since = $11, failing_since = $12, warned_at = $13
WHERE destination_id = $1

-- name: lock
SELECT pg_try_advisory_xact_lock(hashtext(current_schema() || '/partitions'))

-- name: patience
-- Everybody waits behind whoever waits for a table: shorter than the second after which Postgres looks for deadlocks.
SELECT set_config('lock_timeout', '500ms', true)

-- name: existing
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::regclass

-- name: longest_life
-- The longest that anything of an event may still be asked for: its hashes, its body, or the age of its slowest delivery.
SELECT greatest(
    coalesce((SELECT max(retention) FROM endpoints WHERE deleted_at IS NULL), interval '30 days'),
    coalesce((SELECT max((spec ->> 'max_age')::interval) FROM policies), interval '3 days'),
    (SELECT (relay ->> 'hash_retention')::interval FROM configuration)
)

-- name: forget_unsequenced
-- What was dropped before any log took it (none was configured, or it was frozen) must not stand before what can be taken.
DELETE FROM unsequenced u WHERE attempt_id < $1 AND NOT EXISTS (SELECT FROM attempts WHERE id = u.attempt_id)

-- name: forget_keys
-- Its time is asked for twice: a key may be taken anew while this waits for its row, and older servers, such as 16.2, do not
-- look once more whether that is still at its place.
DELETE FROM idempotency
WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency WHERE expires_at < now() LIMIT $1)) AND expires_at < now()

-- name: shorter_lives
-- Endpoints, also removed ones, whose events are over long before their day is dropped: how far each has been emptied,
-- and its oldest event that is still to be delivered, which keeps its body.
SELECT e.id, e.retention, m.up_to, l.needed
FROM endpoints e LEFT JOIN emptied m ON m.endpoint_id = e.id LEFT JOIN (
    SELECT endpoint_id, min(event_id::text COLLATE "C")::uuid AS needed FROM deliveries_live GROUP BY endpoint_id
) l ON l.endpoint_id = e.id
WHERE e.retention < $1

-- name: over
-- The next events of an endpoint that are over, by one step in its index.
SELECT id FROM events WHERE endpoint_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4

-- name: empty_events
UPDATE events SET headers = NULL, body = NULL
WHERE id = ANY ($1::uuid[]) AND id >= $2 AND id <= $3 AND num_nonnulls(headers, body) > 0

-- name: let_empty
SELECT set_config('kapsel.emptying', $1::text, true)

-- name: empty_attempts
-- Neither a delivery nor an attempt is older than its event, so no older partition is looked at.
UPDATE attempts SET response_headers = NULL, response_body = NULL
WHERE id = ANY (ARRAY(
    SELECT a.id FROM deliveries d JOIN attempts a ON a.delivery_id = d.id
    WHERE d.event_id = ANY ($1::uuid[]) AND d.id >= $2 AND a.id >= $2
)) AND id >= $2 AND num_nonnulls(response_headers, response_body) > 0

-- name: emptied
INSERT INTO emptied (endpoint_id, up_to) VALUES ($1, $2) ON CONFLICT (endpoint_id) DO UPDATE SET up_to = excluded.up_to

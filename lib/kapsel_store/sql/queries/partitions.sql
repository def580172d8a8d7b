-- name: lock
SELECT pg_try_advisory_xact_lock(hashtext(current_schema() || '/partitions'))

-- name: existing
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::regclass

-- name: longest_life
-- The longest that anything of an event may still be asked for: its retention, or the age of its slowest delivery.
SELECT greatest(
    coalesce((SELECT max(retention) FROM endpoints WHERE deleted_at IS NULL), interval '30 days'),
    coalesce((SELECT max((spec ->> 'max_age')::interval) FROM policies), interval '3 days')
)

-- name: forget_unsequenced
-- What was dropped before any log took it (none was configured, or it was frozen) must not stand before what can be taken.
DELETE FROM unsequenced u WHERE attempt_id < $1 AND NOT EXISTS (SELECT FROM attempts WHERE id = u.attempt_id)

-- name: forget_keys
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency WHERE expires_at < now() LIMIT $1))

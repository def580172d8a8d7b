-- name: take
-- Whoever comes first when it is due has it for the whole period: no second deliverer asks GitHub the same.
INSERT INTO gap_healings AS h (endpoint_id, next_at) VALUES ($1, now() + $2)
ON CONFLICT (endpoint_id) DO UPDATE SET next_at = excluded.next_at WHERE h.next_at <= now()
RETURNING true

-- name: record
UPDATE gap_healings
SET checked_at = now(), reason = $2, message = $3, missing = $4, requested = requested + $5,
    next_at = greatest(next_at, now() + $6)
WHERE endpoint_id = $1

-- name: held
-- Which of these events are here: their ids are remembered for the window of the endpoint.
SELECT key FROM idempotency WHERE endpoint_id = $1 AND key = ANY($2::bytea[]) AND expires_at > now()

-- name: all
SELECT h.endpoint_id, h.checked_at, h.reason, h.message, h.missing, h.requested
FROM gap_healings h JOIN endpoints e ON e.id = h.endpoint_id
WHERE e.deleted_at IS NULL AND h.reason IS NOT NULL

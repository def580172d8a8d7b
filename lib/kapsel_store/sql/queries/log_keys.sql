-- name: history
SELECT number, public_key, not_before_ms, not_after_ms, announced_in, key_id
FROM log_keys WHERE log_id = $1 ORDER BY number

-- name: begin
INSERT INTO log_keys (log_id, number, public_key, not_before_ms, key_id)
SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4 FROM log_keys WHERE log_id = $1
ON CONFLICT (log_id, public_key) DO NOTHING

-- name: announce
INSERT INTO log_keys (log_id, number, public_key, not_before_ms, announced_in, key_id)
SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5 FROM log_keys WHERE log_id = $1

-- name: end
-- A key that was announced and never signed ends where it would have begun.
UPDATE log_keys SET not_after_ms = greatest($3, not_before_ms)
WHERE log_id = $1 AND public_key = $2 AND not_after_ms IS NULL

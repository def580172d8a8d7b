-- name: last
SELECT hash FROM audit ORDER BY id DESC LIMIT 1

-- name: lock
SELECT pg_advisory_xact_lock(hashtext(current_schema() || '/audit'))

-- name: write
INSERT INTO audit (at, actor, action, subject, detail, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: list
SELECT id, at, actor, action, subject, detail, previous, hash FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2

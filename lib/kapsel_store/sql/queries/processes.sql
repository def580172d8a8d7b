-- name: report
INSERT INTO processes (component, instance, address, generation, waiting) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (component, instance) DO UPDATE
SET address = excluded.address, generation = excluded.generation, waiting = excluded.waiting, seen_at = now()

-- name: leave
DELETE FROM processes WHERE component = $1 AND instance = $2

-- name: list_live
SELECT component, instance, address, generation, started_at, seen_at
FROM processes WHERE seen_at > now() - interval '10 seconds' ORDER BY component, instance

-- name: forget
DELETE FROM processes WHERE seen_at < now() - interval '1 hour'

-- name: try_supervise
SELECT pg_try_advisory_lock(hashtext(current_schema() || '/supervisor'))

-- name: lock
-- One writer at a time, whoever it is: kapsel up, an operator, two of them by mistake.
SELECT pg_advisory_xact_lock(hashtext(current_schema() || '/configuration'))

-- name: current
SELECT generation, digest, relay, log FROM configuration

-- name: generation
SELECT coalesce(max(generation), 0) FROM configuration

-- name: endpoints
SELECT spec FROM endpoints WHERE deleted_at IS NULL ORDER BY namespace, name

-- name: destinations
SELECT d.spec, p.spec AS policy
FROM destinations d JOIN policies p ON p.id = d.policy_id
WHERE d.deleted_at IS NULL ORDER BY d.endpoint_id, d.name

-- name: keys
SELECT id, namespace, name, version, algorithm, sealed, public, not_before, not_after, backend
FROM keys ORDER BY namespace, name, version

-- name: put_configuration
INSERT INTO configuration (generation, digest, relay, log) VALUES ($1, $2, $3, $4)
ON CONFLICT (only_row) DO UPDATE
SET generation = excluded.generation, digest = excluded.digest, relay = excluded.relay, log = excluded.log, applied_at = now()

-- name: put_policies
INSERT INTO policies (id, generation, spec)
SELECT id, $3, spec FROM unnest($1::uuid[], $2::jsonb[]) AS p (id, spec)
ON CONFLICT DO NOTHING

-- name: put_endpoints
-- An unchanged row is not written: its generation says when it last changed.
INSERT INTO endpoints (id, namespace, name, retention, spec, generation)
SELECT id, namespace, name, retention, spec, $6
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::interval[], $5::jsonb[]) AS e (id, namespace, name, retention, spec)
ON CONFLICT (id) DO UPDATE
SET retention = excluded.retention, spec = excluded.spec, generation = excluded.generation, deleted_at = NULL
WHERE endpoints.spec IS DISTINCT FROM excluded.spec OR endpoints.deleted_at IS NOT NULL
RETURNING namespace || '/' || name

-- name: put_destinations
INSERT INTO destinations (id, endpoint_id, name, policy_id, spec, generation)
SELECT id, endpoint_id, name, policy_id, spec, $6
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::jsonb[]) AS d (id, endpoint_id, name, policy_id, spec)
ON CONFLICT (id) DO UPDATE
SET policy_id = excluded.policy_id, spec = excluded.spec, generation = excluded.generation, deleted_at = NULL
WHERE (destinations.spec, destinations.policy_id) IS DISTINCT FROM (excluded.spec, excluded.policy_id)
   OR destinations.deleted_at IS NOT NULL
RETURNING id

-- name: remove_destinations
UPDATE destinations SET deleted_at = now(), generation = $2
WHERE deleted_at IS NULL AND id <> ALL ($1::uuid[])
RETURNING id

-- name: remove_endpoints
UPDATE endpoints SET deleted_at = now(), generation = $2
WHERE deleted_at IS NULL AND id <> ALL ($1::uuid[])
RETURNING namespace || '/' || name, id

-- name: remove_policies
DELETE FROM policies p WHERE NOT EXISTS (SELECT FROM destinations d WHERE d.policy_id = p.id)

-- name: put_keys
INSERT INTO keys (id, namespace, name, version, algorithm, sealed, public, not_before, not_after, generation, backend)
SELECT id, namespace, name, version, algorithm, sealed, public, not_before, not_after, $10, backend
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], $6::bytea[], $7::bytea[], $8::timestamptz[],
            $9::timestamptz[], $11::jsonb[])
     AS k (id, namespace, name, version, algorithm, sealed, public, not_before, not_after, backend)
ON CONFLICT (id) DO UPDATE
SET version = excluded.version, algorithm = excluded.algorithm, sealed = excluded.sealed, public = excluded.public,
    not_before = excluded.not_before, not_after = excluded.not_after, generation = excluded.generation,
    backend = excluded.backend

-- name: remove_keys
DELETE FROM keys WHERE id <> ALL ($1::uuid[])

-- name: resume_changed
-- A destination whose declaration was changed gets a fresh start, by steps if anything was kept from it.
UPDATE circuits SET recovering_since = CASE WHEN disabled_at IS NOT NULL OR state <> 'closed' THEN now() END,
    failing_since = NULL, warned_at = NULL, disabled_at = NULL, disabled_reason = NULL, state = 'closed', open_until = NULL, attempts = 0,
    failures = 0, probes_left = 0, probe_successes = 0, window_started_at = now()
WHERE destination_id = ANY ($1::uuid[])

-- name: cancel_removed
-- What waited for a destination that is gone will not be sent: say so instead of leaving it pending.
UPDATE deliveries SET state = 'cancelled', finished_at = now(), last_reason = 'destination_removed'
WHERE id IN (
    SELECT id FROM deliveries_live WHERE state = 'pending' AND destination_id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED
) AND state = 'pending'

-- name: forget_limits
-- What deliverers and receivers shared of destinations and endpoints that are gone.
WITH slot AS (DELETE FROM slots WHERE destination_id = ANY ($1::uuid[]))
DELETE FROM buckets WHERE id = ANY ($1::uuid[])

-- name: page
SELECT spec, generation FROM endpoints
WHERE deleted_at IS NULL AND (namespace, name) > ($1, $2)
  AND ($3::text IS NULL OR namespace = $3) AND ($4::text IS NULL OR name = $4)
ORDER BY namespace, name LIMIT $5

-- name: destinations
-- Counting stops at a bound: a backlog of millions must not make it dear to look at its endpoint.
WITH under_way AS MATERIALIZED (
    SELECT destination_id, count(*) AS sending FROM deliveries_live WHERE state = 'sending' GROUP BY destination_id
)
SELECT d.spec, p.spec AS policy, d.generation, w.pending, w.oldest_pending, coalesce(u.sending, 0) AS sending
FROM destinations d JOIN policies p ON p.id = d.policy_id
LEFT JOIN under_way u ON u.destination_id = d.id
CROSS JOIN LATERAL (
    SELECT count(*) AS pending, min(created_at) AS oldest_pending FROM (
        SELECT created_at FROM deliveries_live
        WHERE state = 'pending' AND destination_id = d.id ORDER BY due_at LIMIT $2
    ) AS counted
) AS w
WHERE d.deleted_at IS NULL AND d.endpoint_id = ANY ($1::uuid[])
ORDER BY d.endpoint_id, d.name

-- name: destination
SELECT p.namespace, p.name AS endpoint, d.name, d.spec ->> 'suspend' = 'true' AS suspend
FROM destinations d JOIN endpoints p ON p.id = d.endpoint_id
WHERE d.id = $1 AND d.deleted_at IS NULL

-- name: declared
-- An endpoint that is declared now, with its destinations by name.
SELECT e.id, ARRAY(SELECT name FROM destinations WHERE endpoint_id = e.id AND deleted_at IS NULL ORDER BY name) AS names,
       ARRAY(SELECT id FROM destinations WHERE endpoint_id = e.id AND deleted_at IS NULL ORDER BY name) AS ids
FROM endpoints e WHERE e.namespace = $1 AND e.name = $2 AND e.deleted_at IS NULL

-- name: id_of
-- A name that was used again means the endpoint that has it now.
SELECT id FROM endpoints WHERE namespace = $1 AND name = $2 ORDER BY deleted_at DESC NULLS FIRST LIMIT 1

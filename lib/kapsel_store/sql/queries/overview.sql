-- name: has_keys
SELECT EXISTS (SELECT FROM keys)

-- name: generations
-- An endpoint is as new as the newest of its rows.
SELECT e.id, greatest(e.generation, max(d.generation)) AS generation
FROM endpoints e LEFT JOIN destinations d ON d.endpoint_id = e.id AND d.deleted_at IS NULL
WHERE e.deleted_at IS NULL GROUP BY e.id

-- name: key_generations
SELECT namespace, name, max(generation) AS generation FROM keys GROUP BY namespace, name

-- name: waiting
-- Jumps from one destination to the next, so that what it costs grows with how many of them wait and not with how many
-- deliveries do; counting stops at a bound.
WITH RECURSIVE waiting AS (
    (SELECT destination_id FROM deliveries_live WHERE state = 'pending' ORDER BY destination_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT l.destination_id FROM deliveries_live l
        WHERE l.state = 'pending' AND l.destination_id > w.destination_id ORDER BY l.destination_id LIMIT 1
    )
    FROM waiting w WHERE w.destination_id IS NOT NULL
)
SELECT w.destination_id, c.pending, now() - c.oldest AS oldest
FROM waiting w CROSS JOIN LATERAL (
    SELECT count(*) AS pending, min(created_at) AS oldest FROM (
        SELECT created_at FROM deliveries_live
        WHERE state = 'pending' AND destination_id = w.destination_id ORDER BY due_at LIMIT $1
    ) AS counted
) AS c
WHERE w.destination_id IS NOT NULL

-- name: troubled
SELECT destination_id, disabled_reason, state <> 'closed' AND disabled_at IS NULL AS open, warned_at IS NOT NULL AS warned
FROM circuits WHERE state <> 'closed' OR disabled_at IS NOT NULL OR warned_at IS NOT NULL

-- name: recent
-- The newest attempts, so many at most: a busy Relay makes millions in the time that an idle one makes none.
SELECT destination_id, count(*) AS attempts, count(*) FILTER (WHERE outcome = 'delivered') AS delivered,
    (array_agg(reason ORDER BY id DESC) FILTER (WHERE outcome <> 'delivered'))[1] AS last_reason
FROM (
    SELECT id, destination_id, outcome, reason FROM attempts WHERE id >= $1 ORDER BY id DESC LIMIT $2
) AS newest
GROUP BY destination_id

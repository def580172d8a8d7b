-- name: step
-- The newest first, so many rows of each sort at most: those that wait since before $4, and those that were given up. What
-- another delivery stands for is told, and left out by the caller, so that a walk goes on where this step ended.
WITH walked AS MATERIALIZED (
    (SELECT id FROM deliveries_live WHERE id < least($1::uuid, $4::uuid) AND id >= $2 ORDER BY id DESC LIMIT $3)
    UNION ALL
    (SELECT id FROM deliveries WHERE state = 'exhausted' AND id < $1 AND id >= $2 ORDER BY id DESC LIMIT $3)
    ORDER BY id DESC LIMIT $3
)
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement, d.replay_of,
       EXISTS (SELECT FROM superseded s WHERE s.delivery_id = d.id) AS superseded
FROM walked w JOIN LATERAL (SELECT * FROM deliveries WHERE id = w.id LIMIT 1) d ON true
JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
ORDER BY d.id DESC

-- name: step_of_destinations
-- The same of some destinations, each found by itself: the others' would have to be waded through.
WITH walked AS MATERIALIZED (
    SELECT found.id FROM unnest($5::uuid[]) AS want (destination_id), LATERAL (
        (SELECT id FROM deliveries_live
         WHERE destination_id = want.destination_id AND state = 'pending' AND id < least($1::uuid, $4::uuid) AND id >= $2
         ORDER BY id DESC LIMIT $3)
        UNION ALL
        (SELECT id FROM deliveries_live
         WHERE lease_expires_at IS NOT NULL AND destination_id = want.destination_id
           AND id < least($1::uuid, $4::uuid) AND id >= $2
         ORDER BY id DESC LIMIT $3)
        UNION ALL
        (SELECT id FROM deliveries
         WHERE state = 'exhausted' AND destination_id = want.destination_id AND id < $1 AND id >= $2
         ORDER BY id DESC LIMIT $3)
    ) AS found ORDER BY found.id DESC LIMIT $3
)
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement, d.replay_of,
       EXISTS (SELECT FROM superseded s WHERE s.delivery_id = d.id) AS superseded
FROM walked w JOIN LATERAL (SELECT * FROM deliveries WHERE id = w.id LIMIT 1) d ON true
JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
ORDER BY d.id DESC

-- name: destinations
-- Destinations of which anything waits or was given up, in the order of their ids: one step in an index for each.
WITH RECURSIVE failed AS (
    (SELECT destination_id FROM deliveries WHERE state = 'exhausted' AND destination_id > $1
     ORDER BY destination_id LIMIT 1)
    UNION ALL
    SELECT (SELECT destination_id FROM deliveries WHERE state = 'exhausted' AND destination_id > f.destination_id
            ORDER BY destination_id LIMIT 1)
    FROM failed f WHERE f.destination_id IS NOT NULL
), waiting AS (
    (SELECT destination_id FROM deliveries_live WHERE state = 'pending' AND destination_id > $1
     ORDER BY destination_id LIMIT 1)
    UNION ALL
    SELECT (SELECT destination_id FROM deliveries_live WHERE state = 'pending' AND destination_id > w.destination_id
            ORDER BY destination_id LIMIT 1)
    FROM waiting w WHERE w.destination_id IS NOT NULL
), sending AS (
    SELECT DISTINCT destination_id FROM deliveries_live WHERE lease_expires_at IS NOT NULL AND destination_id > $1
    ORDER BY destination_id LIMIT $2
)
SELECT destination_id AS id FROM (SELECT destination_id FROM failed LIMIT $2) f WHERE destination_id IS NOT NULL
UNION SELECT destination_id FROM (SELECT destination_id FROM waiting LIMIT $2) w WHERE destination_id IS NOT NULL
UNION SELECT destination_id FROM sending
ORDER BY id LIMIT $2

-- name: places
-- What they are called, and what keeps back what waits for them.
SELECT t.id, p.namespace, p.name AS endpoint, t.name, t.deleted_at IS NOT NULL AS removed,
       coalesce(t.spec ->> 'suspend' = 'true', false) AS suspend, c.state AS circuit,
       c.disabled_at IS NOT NULL AS disabled
FROM destinations t JOIN endpoints p ON p.id = t.endpoint_id LEFT JOIN circuits c ON c.destination_id = t.id
WHERE t.id = ANY ($1::uuid[])
ORDER BY t.id

-- name: groups
-- How many there are of each state and reason, of the newest $3 of each sort of each destination: whatever there is
-- beyond them, a summary costs no more.
SELECT want.destination_id, g.state, g.last_reason, g.count, g.oldest, g.walked
FROM unnest($1::uuid[]) AS want (destination_id), LATERAL (
    (SELECT state, last_reason, count(*), min(created_at) AS oldest, max(n) AS walked FROM (
        SELECT state, last_reason, created_at, id, count(*) OVER () AS n FROM (
            SELECT state, last_reason, created_at, id FROM deliveries_live
            WHERE state = 'pending' AND destination_id = want.destination_id ORDER BY due_at LIMIT $3
        ) AS first
    ) AS waiting WHERE id < $2 GROUP BY state, last_reason)
    UNION ALL
    (SELECT state, last_reason, count(*), min(created_at), 0 FROM deliveries_live
     WHERE lease_expires_at IS NOT NULL AND destination_id = want.destination_id AND id < $2 GROUP BY state, last_reason)
    UNION ALL
    (SELECT state, last_reason, count(*), min(created_at), max(n) FROM (
        SELECT state, last_reason, created_at, id, count(*) OVER () AS n FROM (
            SELECT state, last_reason, created_at, id FROM deliveries
            WHERE state = 'exhausted' AND destination_id = want.destination_id ORDER BY id DESC LIMIT $3
        ) AS newest
    ) AS failed WHERE NOT EXISTS (SELECT FROM superseded s WHERE s.delivery_id = failed.id) GROUP BY state, last_reason)
) AS g

-- name: destinations_of
-- Of an endpoint: all that it has or had, or the one of that name, whose place another may have taken.
SELECT id FROM destinations WHERE endpoint_id = $1 AND ($2::text IS NULL OR name = $2) AND id > $3 ORDER BY id LIMIT $4

-- name: oldest
-- The oldest of each destination; of those that wait, the oldest of the first that are due.
SELECT want.destination_id, o.state, o.last_reason, o.created_at
FROM unnest($1::uuid[]) AS want (destination_id), LATERAL (
    SELECT * FROM (
        (SELECT state, last_reason, created_at FROM deliveries_live
         WHERE state = 'pending' AND destination_id = want.destination_id AND id < $2 ORDER BY due_at LIMIT 100)
        UNION ALL
        (SELECT state, last_reason, created_at FROM deliveries_live
         WHERE lease_expires_at IS NOT NULL AND destination_id = want.destination_id AND id < $2)
        UNION ALL
        (SELECT state, last_reason, created_at FROM (
            SELECT id, state, last_reason, created_at FROM deliveries
            WHERE state = 'exhausted' AND destination_id = want.destination_id ORDER BY id LIMIT $3
        ) AS failed WHERE NOT EXISTS (SELECT FROM superseded s WHERE s.delivery_id = failed.id) LIMIT 1)
    ) AS each ORDER BY created_at LIMIT 1
) AS o

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
       EXISTS (SELECT FROM superseded s WHERE s.delivery_id = d.id) AS superseded, d.held, k.blocked_by, k.blocked_at
FROM walked w JOIN LATERAL (SELECT * FROM deliveries WHERE id = w.id LIMIT 1) d ON true
JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
LEFT JOIN turns k ON d.held AND k.destination_id = d.destination_id AND k.key = d.order_key
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
       EXISTS (SELECT FROM superseded s WHERE s.delivery_id = d.id) AS superseded, d.held, k.blocked_by, k.blocked_at
FROM walked w JOIN LATERAL (SELECT * FROM deliveries WHERE id = w.id LIMIT 1) d ON true
JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
LEFT JOIN turns k ON d.held AND k.destination_id = d.destination_id AND k.key = d.order_key
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
-- What they are called.
SELECT t.id, p.namespace, p.name AS endpoint, t.name, t.deleted_at IS NOT NULL AS removed
FROM destinations t JOIN endpoints p ON p.id = t.endpoint_id
WHERE t.id = ANY ($1::uuid[])
ORDER BY t.id

-- name: groups
-- How many there are of each state and reason, of the newest $3 of each sort of each destination: whatever there is
-- beyond them, a summary costs no more. Those that were not tried yet are told apart by what may keep one and not the
-- other: the line of its key, its time, and whether there is a token for it, which there is up to $4.
SELECT want.destination_id, g.state, g.last_reason, g.count, g.oldest, g.walked, g.due_at, coalesce(g.held, false) AS held,
       g.blocked_by, g.blocked_at
FROM unnest($1::uuid[], $4::timestamptz[]) AS want (destination_id, covered), LATERAL (
    (SELECT state, last_reason, count(*), min(created_at) AS oldest, max(n) AS walked, min(due_at) AS due_at, held,
            (array_agg(blocked_by))[1] AS blocked_by, min(blocked_at) AS blocked_at
     FROM (
        SELECT few.*, k.blocked_by, k.blocked_at,
               CASE WHEN few.held IS NOT NULL THEN (few.due_at > now(), few.due_at > want.covered) END AS kept
        FROM (
            SELECT state, last_reason, created_at, id, due_at, destination_id, order_key,
                   CASE WHEN last_reason IS NULL THEN held END AS held, count(*) OVER () AS n
            FROM (
                SELECT * FROM deliveries_live
                WHERE state = 'pending' AND destination_id = want.destination_id ORDER BY due_at LIMIT $3
            ) AS first
        ) AS few
        LEFT JOIN turns k ON few.held AND k.destination_id = few.destination_id AND k.key = few.order_key
    ) AS waiting WHERE id < $2 GROUP BY state, last_reason, held, blocked_by IS NULL, kept)
    UNION ALL
    (SELECT state, last_reason, count(*), min(created_at), 0, min(due_at), false, NULL, NULL FROM deliveries_live
     WHERE lease_expires_at IS NOT NULL AND destination_id = want.destination_id AND id < $2 GROUP BY state, last_reason)
    UNION ALL
    (SELECT state, last_reason, count(*), min(created_at), max(n), NULL, false, NULL, NULL FROM (
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
-- The oldest of each destination and reason; of those that wait, of the first that are due, and of those that were given
-- up, of the first $3. Those that were not tried yet are told apart by what may keep one and not the other, and the oldest
-- stands for its like.
SELECT want.destination_id, o.*
FROM unnest($1::uuid[]) AS want (destination_id), LATERAL (
    (SELECT state, last_reason, min(created_at) AS created_at, (array_agg(due_at ORDER BY created_at))[1] AS due_at,
            coalesce(held, false) AS held, (array_agg(blocked_by))[1] AS blocked_by, min(blocked_at) AS blocked_at
     FROM (
        SELECT few.*, k.blocked_by, k.blocked_at, CASE WHEN few.held IS NOT NULL THEN few.due_at > now() END AS later
        FROM (
            SELECT state, last_reason, created_at, due_at, destination_id, order_key,
                   CASE WHEN last_reason IS NULL THEN held END AS held
            FROM deliveries_live
            WHERE state = 'pending' AND destination_id = want.destination_id AND id < $2 ORDER BY due_at LIMIT 100
        ) AS few
        LEFT JOIN turns k ON few.held AND k.destination_id = few.destination_id AND k.key = few.order_key
     ) AS waiting GROUP BY state, last_reason, held, blocked_by IS NULL, later)
    UNION ALL
    (SELECT state, last_reason, min(created_at), min(due_at), false, NULL, NULL FROM deliveries_live
     WHERE lease_expires_at IS NOT NULL AND destination_id = want.destination_id AND id < $2 GROUP BY state, last_reason)
    UNION ALL
    (SELECT DISTINCT ON (last_reason) state, last_reason, created_at, due_at, false, NULL::uuid, NULL::timestamptz FROM (
        SELECT id, state, last_reason, created_at, due_at FROM deliveries
        WHERE state = 'exhausted' AND destination_id = want.destination_id ORDER BY id LIMIT $3
    ) AS failed WHERE NOT EXISTS (SELECT FROM superseded s WHERE s.delivery_id = failed.id) ORDER BY last_reason, id)
) AS o

-- name: circumstances
-- What keeps the deliveries of these destinations. Tries under way are few, and counted in one pass for all of them.
SELECT t.id, now() AS now, t.spec, p.spec AS policy, t.deleted_at IS NOT NULL AS removed,
       coalesce(s.sending, 0) AS sending,
       (SELECT count(*) FROM processes
        WHERE component = 'deliverer' AND seen_at > now() - interval '10 seconds' AND t.id = ANY (waiting)) AS lacking
FROM destinations t LEFT JOIN policies p ON p.id = t.policy_id LEFT JOIN (
    SELECT destination_id, count(*) AS sending FROM deliveries_live WHERE lease_expires_at IS NOT NULL
    GROUP BY destination_id
) AS s ON s.destination_id = t.id
WHERE t.id = ANY ($1::uuid[])

-- name: own
-- What of one delivery decides where it is: its event, what is before it at its destination, its lease. Counting stops
-- at $4.
SELECT e.body IS NOT NULL AS event_there, e.id IS NOT NULL AND e.body_hash IS NULL AS event_erased,
       (SELECT count(*) FROM (
           SELECT FROM deliveries_live WHERE state = 'pending' AND destination_id = $1 AND due_at < least($3, now())
           LIMIT $4
       ) AS earlier) AS ahead,
       (SELECT lease_expires_at FROM deliveries_live WHERE id = $5 AND state = 'sending') AS lease_expires_at
FROM (SELECT) AS always LEFT JOIN events e ON e.id = $2

-- name: covered
-- The last due delivery that there is a token for, of so many in each destination: what is due later waits for one.
SELECT want.id, (
    SELECT due_at FROM deliveries_live WHERE state = 'pending' AND destination_id = want.id AND due_at < now()
    ORDER BY due_at OFFSET want.tokens - 1 LIMIT 1
) AS due_at
FROM unnest($1::uuid[], $2::int[]) AS want (id, tokens)

-- name: family
-- All deliveries of one event to one destination: the first, and those that were made anew of it.
SELECT id, state, created_at, finished_at, last_reason, replay_of FROM deliveries
WHERE event_id = $1 AND id >= $4 AND destination_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3

-- name: parked
SELECT reason FROM parked WHERE attempt_id = $1

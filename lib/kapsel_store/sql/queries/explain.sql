-- name: circumstances
-- What keeps a delivery where it is: its destination, what is before it there, and its event. Counting stops at $4.
SELECT now() AS now, t.spec, p.spec AS policy, t.deleted_at IS NOT NULL AS removed, e.body IS NOT NULL AS event_there,
       e.id IS NOT NULL AND e.body_hash IS NULL AS event_erased,
       (SELECT count(*) FROM (
           SELECT FROM deliveries_live WHERE state = 'pending' AND destination_id = t.id AND due_at < least($3, now())
           LIMIT $4
       ) AS earlier) AS ahead,
       (SELECT count(*) FROM deliveries_live WHERE lease_expires_at IS NOT NULL AND destination_id = t.id) AS sending,
       (SELECT count(*) FROM processes
        WHERE component = 'deliverer' AND seen_at > now() - interval '10 seconds' AND t.id = ANY (waiting)) AS lacking,
       (SELECT lease_expires_at FROM deliveries_live WHERE id = $5 AND state = 'sending') AS lease_expires_at
FROM destinations t LEFT JOIN policies p ON p.id = t.policy_id LEFT JOIN events e ON e.id = $2
WHERE t.id = $1

-- name: family
-- All deliveries of one event to one destination: the first, and those that were made anew of it.
SELECT id, state, created_at, finished_at, last_reason, replay_of FROM deliveries
WHERE event_id = $1 AND destination_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3

-- name: parked
SELECT reason FROM parked WHERE attempt_id = $1

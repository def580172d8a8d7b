-- name: pass
SELECT pass_turns($1::uuid[], $2::bytea[])

-- name: ended
-- Keys whose turn nobody has passed: whoever ended a delivery of them has crashed since, or left it to the next round.
SELECT destination_id, key, count(*) AS notes FROM (SELECT destination_id, key FROM ended_turns LIMIT $1) AS e
GROUP BY destination_id, key

-- name: unblock
-- Skips what blocks these keys, of one destination or only where one delivery blocks. The row in ended_turns has the turn
-- passed also by others, if whoever asks crashes now.
WITH chosen AS MATERIALIZED (
    SELECT destination_id, key, head, blocked_by FROM turns
    WHERE destination_id = $1 AND blocked_by IS NOT NULL AND ($2::uuid IS NULL OR blocked_by = $2)
    ORDER BY destination_id, key FOR UPDATE
), opened AS (
    UPDATE turns t SET blocked_by = NULL, blocked_at = NULL FROM chosen c
    WHERE t.destination_id = c.destination_id AND t.key = c.key
), passed AS (
    INSERT INTO ended_turns (destination_id, key, number, delivery_id, blocks)
    SELECT destination_id, key, head, blocked_by, false FROM chosen
)
SELECT destination_id, key FROM chosen

-- name: blocking_in_vain
-- Destinations with blocked keys that are gone, or that do not ask for it any more.
SELECT DISTINCT b.destination_id
FROM turns b JOIN destinations t ON t.id = b.destination_id
WHERE b.blocked_by IS NOT NULL
  AND (t.deleted_at IS NOT NULL OR t.spec #>> '{ordering,on_exhausted}' IS DISTINCT FROM 'Block')

-- name: blocked
-- Counted up to a bound for each key, by the index of what waits in order.
SELECT e.namespace, e.name AS endpoint, t.name AS destination, b.destination_id, b.key, b.shown, b.blocked_by,
       b.blocked_at, d.event_id, d.attempts, d.last_reason,
       (
           SELECT count(*) FROM (
               SELECT FROM deliveries_live w
               WHERE w.destination_id = b.destination_id AND w.order_key = b.key LIMIT $4 + 1
           ) AS few
       ) AS waiting
FROM turns b
JOIN destinations t ON t.id = b.destination_id JOIN endpoints e ON e.id = t.endpoint_id
LEFT JOIN deliveries d ON d.id = b.blocked_by
WHERE b.blocked_by IS NOT NULL AND (b.destination_id, b.key) > ($1, $2)
ORDER BY b.destination_id, b.key LIMIT $3

-- name: count_blocked
SELECT count(*) FROM turns WHERE blocked_by IS NOT NULL

-- name: of_delivery
-- Where a delivery stands in the line of its key; no row if it has none, or has ended.
SELECT d.held, t.shown, t.blocked_by, t.blocked_at, h.id AS head, h.state AS head_state,
       (
           SELECT count(*) FROM (
               SELECT FROM deliveries_live w
               WHERE w.destination_id = d.destination_id AND w.order_key = d.order_key
                 AND w.order_number < d.order_number LIMIT $2 + 1
           ) AS few
       ) AS ahead
FROM deliveries_live d
JOIN turns t ON t.destination_id = d.destination_id AND t.key = d.order_key
LEFT JOIN LATERAL (
    SELECT f.id, f.state FROM deliveries_live f
    WHERE f.destination_id = d.destination_id AND f.order_key = d.order_key
    ORDER BY f.destination_id, f.order_key, f.order_number LIMIT 1
) AS h ON true
WHERE d.id = $1 AND d.state IN ('pending', 'sending')

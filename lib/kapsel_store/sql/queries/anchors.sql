-- name: begin
-- The newest head, at most once per interval, and not if it holds nothing that an earlier anchor does not.
INSERT INTO anchors (log_id, timestamp_ms, tree_size, nonce)
SELECT log_id, timestamp_ms, tree_size, $3
FROM (SELECT log_id, timestamp_ms, tree_size FROM heads WHERE log_id = $1 ORDER BY timestamp_ms DESC LIMIT 1) newest
WHERE tree_size > coalesce((SELECT max(tree_size) FROM anchors WHERE log_id = $1), 0)
  AND NOT EXISTS (SELECT FROM anchors WHERE log_id = $1 AND created_at > now() - $2::interval)
ON CONFLICT (log_id, timestamp_ms) DO NOTHING
RETURNING timestamp_ms

-- name: due
-- Of all logs: the last heads of one that ended are in no block yet when the next one begins. Those that wait longest
-- come first, so that none is passed over while calendars are slow.
SELECT a.log_id, a.timestamp_ms, a.tree_size, h.checkpoint, a.nonce, a.ots, a.height, now() - a.created_at AS age, a.tries
FROM anchors a JOIN heads h USING (log_id, timestamp_ms)
WHERE NOT a.complete AND a.next_at <= now()
ORDER BY a.next_at LIMIT $1

-- name: keep
-- Whoever read another file loses: what the other has added must not be lost.
UPDATE anchors
SET ots = $4, height = $5, confirmed_at = CASE WHEN $5::bigint IS NOT NULL THEN coalesce(confirmed_at, now()) END,
    complete = $6, next_at = now() + $7::interval, tries = tries + 1
WHERE log_id = $1 AND timestamp_ms = $2 AND ots IS NOT DISTINCT FROM $3 AND NOT complete
RETURNING timestamp_ms

-- name: covering
-- The first confirmed one bounds the time of a leaf best; while there is none, the first that was promised.
SELECT h.log_id, h.timestamp_ms, h.tree_size, h.root, h.checkpoint, h.sth_signature, h.public_key, h.published_at,
       a.ots, a.height
FROM (
    (SELECT * FROM anchors
     WHERE log_id = $1 AND tree_size > $2 AND height IS NOT NULL ORDER BY tree_size, timestamp_ms LIMIT 1)
    UNION ALL
    (SELECT * FROM anchors
     WHERE log_id = $1 AND tree_size > $2 AND height IS NULL AND ots IS NOT NULL
     ORDER BY tree_size, timestamp_ms LIMIT 1)
) a JOIN heads h USING (log_id, timestamp_ms)
ORDER BY a.height IS NULL LIMIT 1

-- name: of_head
SELECT ots FROM anchors WHERE log_id = $1 AND timestamp_ms = $2 AND ots IS NOT NULL

-- name: newest
SELECT timestamp_ms, tree_size, ots, height, tries FROM anchors WHERE log_id = $1 ORDER BY timestamp_ms DESC LIMIT 1

-- name: newest_confirmed
SELECT timestamp_ms, tree_size, ots, height, tries FROM anchors
WHERE log_id = $1 AND height IS NOT NULL ORDER BY timestamp_ms DESC LIMIT 1

-- name: pending
SELECT count(*) AS count, now() - min(created_at) AS oldest FROM anchors WHERE log_id = $1 AND height IS NULL

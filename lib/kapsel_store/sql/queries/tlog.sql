-- name: try_lock
SELECT pg_try_advisory_lock(hashtext(current_schema() || '/log/' || $1))

-- name: unlock
SELECT pg_advisory_unlock(hashtext(current_schema() || '/log/' || $1))

-- name: open
INSERT INTO logs (origin, root) VALUES ($1, sha256('')) ON CONFLICT (origin) DO NOTHING

-- name: state
SELECT id, origin, tree_size, root, frozen_reason FROM logs WHERE origin = $1

-- name: states
SELECT id, origin, tree_size, root, frozen_reason FROM logs ORDER BY id

-- name: freeze
UPDATE logs SET frozen_reason = $2 WHERE id = $1 AND frozen_reason IS NULL

-- name: pending
-- What a leaf records and no more: the stored responses are large and stay where they are.
-- The columns stand in the order and in the forms of PendingAttempt. Each attempt is looked up by its id (LATERAL with
-- LIMIT), whatever the statistics of a table that fills and empties suggest: joining all attempts would grow with the log.
-- In the order of the index that they come from: ordered by the attempts' own ids they would be sorted once more.
SELECT a.id::text, a.delivery_id::text, a.event_id::text, a.endpoint_id::text, p.namespace, p.name, t.name, a.number,
       a.started_at, a.outcome, a.reason, a.url, encode(a.payload_hash, 'hex'), encode(a.payload_commitment, 'hex'),
       encode(a.signature_digest, 'hex'), a.response_status, encode(a.response_digest, 'hex'),
       a.acknowledgement_base, a.acknowledgement_key, a.acknowledgement_signature, encode(a.sent_hash, 'hex')
FROM (
    -- NOT IN hashes what is parked, once. As a join it is nested loops where both were empty when they were last analyzed.
    SELECT attempt_id FROM unsequenced
    WHERE attempt_id > $2 AND attempt_id NOT IN (SELECT attempt_id FROM parked)
    ORDER BY attempt_id LIMIT $1
) u
CROSS JOIN LATERAL (SELECT * FROM attempts WHERE id = u.attempt_id LIMIT 1) a
JOIN endpoints p ON p.id = a.endpoint_id JOIN destinations t ON t.id = a.destination_id
ORDER BY u.attempt_id

-- name: pending_count
-- What is parked is counted by itself.
SELECT (SELECT count(*) FROM unsequenced) - (SELECT count(*) FROM parked) AS count, (
    SELECT attempt_id FROM unsequenced u WHERE NOT EXISTS (SELECT FROM parked WHERE attempt_id = u.attempt_id)
    ORDER BY attempt_id LIMIT 1
) AS oldest

-- name: park
-- Tried again after a minute, and then ever later: whatever was wrong with it is seldom gone soon.
INSERT INTO parked (attempt_id, reason, due_at)
SELECT attempt_id, reason, now() + interval '1 minute' FROM unnest($1::uuid[], $2::text[]) AS p (attempt_id, reason)
ON CONFLICT (attempt_id) DO UPDATE
SET reason = excluded.reason, tries = parked.tries + 1,
    due_at = now() + least(interval '1 minute' * (2 ^ least(parked.tries, 10)), interval '1 hour')

-- name: unpark
WITH gone AS (DELETE FROM parked WHERE attempt_id = ANY ($1::uuid[]) RETURNING 1) SELECT count(*) FROM gone

-- name: forget_parked
-- What its retention has taken away meanwhile need not be put into a log any more.
DELETE FROM parked p WHERE NOT EXISTS (SELECT FROM unsequenced WHERE attempt_id = p.attempt_id)

-- name: parked
SELECT attempt_id, reason, tries, parked_at, due_at FROM parked ORDER BY attempt_id LIMIT $1

-- name: parked_count
SELECT count(*) FROM parked

-- name: parked_due
-- In the same columns as pending.
SELECT a.id::text, a.delivery_id::text, a.event_id::text, a.endpoint_id::text, p.namespace, p.name, t.name, a.number,
       a.started_at, a.outcome, a.reason, a.url, encode(a.payload_hash, 'hex'), encode(a.payload_commitment, 'hex'),
       encode(a.signature_digest, 'hex'), a.response_status, encode(a.response_digest, 'hex'),
       a.acknowledgement_base, a.acknowledgement_key, a.acknowledgement_signature, encode(a.sent_hash, 'hex')
FROM parked k JOIN unsequenced u USING (attempt_id)
CROSS JOIN LATERAL (SELECT * FROM attempts WHERE id = k.attempt_id LIMIT 1) a
JOIN endpoints p ON p.id = a.endpoint_id JOIN destinations t ON t.id = a.destination_id
WHERE k.due_at <= now() OR $2
ORDER BY a.id LIMIT $1

-- name: chains
SELECT endpoint_id::text, sequence, leaf_hash FROM chains WHERE log_id = $1 AND endpoint_id = ANY ($2::uuid[])

-- name: advance
-- The fence: whoever expected another size loses, and the whole transaction with it.
UPDATE logs SET tree_size = $3, root = $4 WHERE id = $1 AND tree_size = $2 RETURNING id

-- name: take
-- What has its leaf from this one on waits no more. The leaves were written a moment ago, so the ids need not be sent again.
WITH taken AS (
    DELETE FROM unsequenced
    WHERE attempt_id = ANY (ARRAY(SELECT attempt_id FROM leaves WHERE log_id = $1 AND leaf_index >= $2))
    RETURNING 1
)
SELECT count(*) FROM taken

-- name: put_tiles
INSERT INTO tiles (log_id, level, index, hashes)
SELECT $1, level, index, hashes FROM unnest($2::smallint[], $3::bigint[], $4::bytea[]) AS t (level, index, hashes)
ON CONFLICT (log_id, level, index) DO UPDATE SET hashes = excluded.hashes

-- name: put_chains
INSERT INTO chains (log_id, endpoint_id, sequence, leaf_hash)
SELECT $1, endpoint_id, sequence, leaf_hash
FROM unnest($2::uuid[], $3::bigint[], $4::bytea[]) AS c (endpoint_id, sequence, leaf_hash)
ON CONFLICT (log_id, endpoint_id) DO UPDATE SET sequence = excluded.sequence, leaf_hash = excluded.leaf_hash

-- name: tiles
SELECT t.level, t.index, t.hashes
FROM unnest($2::smallint[], $3::bigint[]) AS asked (level, index) JOIN tiles t USING (level, index)
WHERE t.log_id = $1

-- name: leaves
SELECT leaf_index, attempt_id, leaf FROM leaves
WHERE log_id = $1 AND leaf_index >= $2 AND leaf_index < $2 + $3 ORDER BY leaf_index

-- name: leaf_of_attempt
-- An attempt has a second leaf where no head covered the first one when its log was frozen: the newest one counts.
SELECT log_id, leaf_index, attempt_id, leaf FROM leaves WHERE attempt_id = $1 ORDER BY log_id DESC LIMIT 1

-- name: requeue
-- What no head covers waits once more, unless a later log has it; but for what was erased, which nobody is to know.
INSERT INTO unsequenced (attempt_id)
SELECT attempt_id FROM leaves l
WHERE l.log_id = $1 AND l.leaf_index >= $2 AND l.attempt_id IS NOT NULL AND l.leaf IS NOT NULL
  -- Each by itself: as joins they read all leaves and all attempts, for the few that no head covers.
  AND (SELECT true FROM leaves later WHERE later.attempt_id = l.attempt_id AND later.log_id > l.log_id LIMIT 1) IS NULL
  AND (SELECT payload_hash FROM attempts WHERE id = l.attempt_id) IS NOT NULL
ON CONFLICT (attempt_id) DO NOTHING

-- name: all_heads
SELECT log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key, published_at
FROM heads WHERE log_id = $1 AND timestamp_ms > $2 ORDER BY timestamp_ms LIMIT $3

-- name: chain_ends
SELECT endpoint_id::text, sequence, leaf_hash FROM chains
WHERE log_id = $1 AND endpoint_id > $2 ORDER BY chains.endpoint_id LIMIT $3

-- name: remove_tiles
DELETE FROM tiles t USING unnest($2::smallint[], $3::bigint[]) AS gone (level, index)
WHERE t.log_id = $1 AND t.level = gone.level AND t.index = gone.index

-- name: remove_tiles_beyond
-- What no tree of so many leaves has.
WITH removed AS (
    DELETE FROM tiles WHERE log_id = $1 AND index * 256 >= $2::bigint >> (8 * level) RETURNING 1
)
SELECT count(*) FROM removed

-- name: unfreeze
UPDATE logs SET frozen_reason = NULL WHERE id = $1

-- name: oldest_unpublished
-- The attempt of the first leaf that no head covers; statements of the log itself were made by nobody's delivery.
SELECT attempt_id FROM leaves
WHERE log_id = $1 AND leaf_index >= $2 AND attempt_id IS NOT NULL ORDER BY leaf_index LIMIT 1

-- name: publish
INSERT INTO heads (log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: latest_head
SELECT log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key, published_at
FROM heads WHERE log_id = $1 ORDER BY timestamp_ms DESC LIMIT 1

-- name: head_covering
-- The first head that covers a leaf bounds its time best, and stays the same however the log grows.
SELECT log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key, published_at
FROM heads WHERE log_id = $1 AND tree_size > $2 ORDER BY tree_size, timestamp_ms LIMIT 1

-- name: newest_head
SELECT log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key, published_at
FROM heads ORDER BY log_id DESC, timestamp_ms DESC LIMIT 1

-- name: heads
SELECT log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key, published_at
FROM heads WHERE log_id = $1 ORDER BY timestamp_ms DESC LIMIT $2

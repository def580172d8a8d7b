-- name: remove
-- What is declared no longer stops where it is. With $4 only these names are meant, without it all but these. What a person
-- asked for is in no manifest, and no manifest takes it away.
UPDATE replays SET removed_at = now()
WHERE removed_at IS NULL AND NOT asked AND id <> ALL ($1::uuid[])
  AND $4 = EXISTS (
      SELECT FROM unnest($2::text[], $3::text[]) AS n (namespace, name)
      WHERE n.namespace = replays.namespace AND n.name = replays.name
  )
RETURNING namespace || '/' || name AS name

-- name: put
-- Known ones keep what they have done. Their pace may change, and one that comes back goes on where it was.
INSERT INTO replays (id, namespace, name, endpoint_id, destinations, received_from, received_to, states, dry_run, rate, suspend,
                     reasons, missing, anyway, asked, filter)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO UPDATE SET rate = excluded.rate, suspend = excluded.suspend, removed_at = NULL, next_at = now()
WHERE (replays.rate, replays.suspend) IS DISTINCT FROM (excluded.rate, excluded.suspend)
   OR replays.removed_at IS NOT NULL
RETURNING namespace || '/' || name AS name, xmax = 0 AS made

-- name: lock_asking
-- One after the other, so that what is open is counted and added to without anybody between.
SELECT pg_advisory_xact_lock(hashtext(current_schema() || '/replays'))

-- name: before_asked
-- How many that people asked for are open beside one in its namespace; none if this one is there already and needs no room.
SELECT count(*) FROM replays
WHERE asked AND namespace = $2 AND completed_at IS NULL AND removed_at IS NULL
  AND NOT EXISTS (SELECT FROM replays WHERE id = $1 AND removed_at IS NULL)

-- name: pace
-- Suspended, or going on: only what a person asked for, since of the others their manifests say so.
UPDATE replays SET suspend = $2, next_at = now()
WHERE id = $1 AND asked AND removed_at IS NULL AND completed_at IS NULL AND suspend <> $2
RETURNING id

-- name: cancel
-- What a person asked for a person takes back; what a manifest declares goes with its manifest.
UPDATE replays SET removed_at = now()
WHERE id = $1 AND asked AND removed_at IS NULL AND completed_at IS NULL
RETURNING id

-- name: progress
SELECT r.id, r.namespace, r.name, e.name AS endpoint, r.received_from, r.received_to, r.states, r.dry_run, r.rate,
       r.suspend, r.declared_at, r.removed_at, r.started_at, r.counted_at, r.enqueued_at, r.completed_at, r.matched,
       r.enqueued, r.skipped_events, r.skipped_destinations, r.skipped_pending, r.delivered, r.failed, r.reasons, r.missing,
       r.asked, r.filter, r.unjudged
FROM replays r LEFT JOIN endpoints e ON e.id = r.endpoint_id
WHERE r.removed_at IS NULL AND ($1 OR NOT r.asked) ORDER BY r.namespace, r.name, r.asked

-- name: get
SELECT r.id, r.namespace, r.name, e.name AS endpoint, r.received_from, r.received_to, r.states, r.dry_run, r.rate,
       r.suspend, r.declared_at, r.removed_at, r.started_at, r.counted_at, r.enqueued_at, r.completed_at, r.matched,
       r.enqueued, r.skipped_events, r.skipped_destinations, r.skipped_pending, r.delivered, r.failed, r.reasons, r.missing,
       r.asked, r.filter, r.unjudged
FROM replays r LEFT JOIN endpoints e ON e.id = r.endpoint_id
WHERE r.id = $1

-- name: page
SELECT r.id, r.namespace, r.name, e.name AS endpoint, r.received_from, r.received_to, r.states, r.dry_run, r.rate,
       r.suspend, r.declared_at, r.removed_at, r.started_at, r.counted_at, r.enqueued_at, r.completed_at, r.matched,
       r.enqueued, r.skipped_events, r.skipped_destinations, r.skipped_pending, r.delivered, r.failed, r.reasons, r.missing,
       r.asked, r.filter, r.unjudged
FROM replays r LEFT JOIN endpoints e ON e.id = r.endpoint_id
WHERE (r.namespace, r.name, r.declared_at) > ($1, $2, $3) ORDER BY r.namespace, r.name, r.declared_at LIMIT $4

-- name: running
SELECT count(*) FROM replays
WHERE completed_at IS NULL AND (removed_at IS NULL AND NOT suspend OR enqueued > delivered + failed)

-- name: take
-- One that is due, and that nobody else works on at this moment. The lock ends with the transaction, however that ends:
-- also when a machine loses its power, and the server has not noticed that nobody will go on. Of one that was removed, what it
-- had made by then is still seen to its end, as of one that is suspended.
SELECT id, namespace, name, endpoint_id, destinations, received_from, received_to, states, dry_run, rate,
       suspend OR removed_at IS NOT NULL AS suspend,
       reasons, missing, anyway, filter, unjudged,
       started_at, counted_at, enqueued_at, completed_at, matched, enqueued, skipped_events, skipped_destinations,
       skipped_pending, delivered, failed, walked_event, walked_delivery, settled_to, now() AS now,
       set_config('idle_in_transaction_session_timeout', '30s', true) AS bounded
FROM replays
WHERE completed_at IS NULL AND next_at <= now()
  AND (removed_at IS NULL AND NOT suspend OR enqueued > delivered + failed)
ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: save
UPDATE replays
SET started_at = $2, counted_at = $3, enqueued_at = $4, completed_at = $5, matched = $6, enqueued = $7,
    skipped_events = $8, skipped_destinations = $9, delivered = $10, failed = $11, walked_event = $12,
    walked_delivery = $13, settled_to = $14, skipped_pending = $16, unjudged = $17, next_at = now() + $15
WHERE id = $1

-- name: put_off
UPDATE replays SET next_at = now() + $2 WHERE id = $1

-- name: step_of_events
-- How far one statement may walk: the events of one endpoint, by their index.
SELECT id FROM events WHERE endpoint_id = $1 AND id >= $2 AND id < $3 ORDER BY id OFFSET $4 LIMIT 1

-- name: step_of_not_delivered
-- How far one statement may walk: what failed anywhere, which is rare, by an index of its own. It is found by its words.
SELECT id FROM deliveries
WHERE state IN ('exhausted', 'cancelled') AND state <> 'delivered' AND id > $1 AND id < $2 ORDER BY id OFFSET $3 LIMIT 1

-- name: matched_of_events
-- Deliveries of the endpoint's events from one to another, in the order of the events. What was sent again before the
-- replay began is left out: the newer delivery stands for it. Read at once, since asking for each event alone asks every
-- partition each time.
WITH of_events AS MATERIALIZED (
    SELECT id, event_id, destination_id, state, created_at, finished_at, last_reason, order_key FROM deliveries
    WHERE event_id = ANY (ARRAY(SELECT id FROM events WHERE endpoint_id = $1 AND id BETWEEN $2 AND $3)) AND id >= $9
)
SELECT d.id, d.event_id, d.destination_id, d.order_key,
       (SELECT e.body FROM events e WHERE e.id = d.event_id) IS NULL AS gone,
       (SELECT t.deleted_at FROM destinations t WHERE t.id = d.destination_id) IS NOT NULL AS removed
FROM of_events d
WHERE d.state IN ('delivered', 'exhausted', 'cancelled') AND d.state = ANY ($5::text[])
  AND (d.event_id, d.id) > ($2, $4) AND d.finished_at <= $6
  AND ($7::uuid[] IS NULL OR d.destination_id = ANY ($7))
  AND ($10::text[] IS NULL OR d.last_reason LIKE ANY ($10))
  AND NOT EXISTS (
      SELECT FROM of_events n
      WHERE n.event_id = d.event_id AND n.destination_id = d.destination_id AND n.created_at <= $6
        AND (n.created_at, n.id) > (d.created_at, d.id) AND (NOT $11 OR n.finished_at <= $6)
  )
ORDER BY d.event_id, d.id LIMIT $8

-- name: matched_of_not_delivered
-- The same for deliveries that failed, found by themselves: looking through all events would cost by what went well.
SELECT d.id, d.event_id, d.destination_id, d.order_key,
       (SELECT e.body FROM events e WHERE e.id = d.event_id) IS NULL AS gone,
       (SELECT t.deleted_at FROM destinations t WHERE t.id = d.destination_id) IS NOT NULL AS removed
FROM deliveries d
WHERE d.state IN ('exhausted', 'cancelled') AND d.state <> 'delivered' AND d.state = ANY ($5::text[])
  AND d.id > $3 AND d.id <= $4 AND d.endpoint_id = $1 AND d.event_id >= $2 AND d.event_id < $9 AND d.finished_at <= $6
  AND ($7::uuid[] IS NULL OR d.destination_id = ANY ($7))
  AND ($10::text[] IS NULL OR d.last_reason LIKE ANY ($10))
  AND (
      SELECT true FROM deliveries n
      WHERE n.event_id = d.event_id AND n.destination_id = d.destination_id AND n.created_at <= $6
        AND (n.created_at, n.id) > (d.created_at, d.id) AND (NOT $11 OR n.finished_at <= $6) LIMIT 1
  ) IS NULL
ORDER BY d.id LIMIT $8

-- name: matched_of_missing
-- Events that had no delivery to a destination when the replay began, since it was declared later. What has none cannot be
-- named by one, so the pair of event and destination is named by a hash of both.
WITH of_events AS MATERIALIZED (
    SELECT id, body IS NULL AS gone FROM events WHERE endpoint_id = $1 AND id BETWEEN $2 AND $3
), of_deliveries AS MATERIALIZED (
    SELECT event_id, destination_id FROM deliveries
    WHERE event_id = ANY (ARRAY(SELECT id FROM of_events)) AND id >= $8 AND created_at <= $5
), pairs AS (
    SELECT md5(e.id::text || t.id::text)::uuid AS id, e.id AS event_id, t.id AS destination_id, e.gone,
           t.deleted_at IS NOT NULL AS removed
    FROM of_events e CROSS JOIN destinations t
    WHERE t.endpoint_id = $1 AND (t.id = ANY ($6) OR $6 IS NULL AND t.deleted_at IS NULL)
)
SELECT id, event_id, destination_id, NULL::bytea AS order_key, gone, removed FROM pairs
WHERE (event_id, id) > ($2, $4) AND (event_id, destination_id) NOT IN (SELECT event_id, destination_id FROM of_deliveries)
ORDER BY event_id, id LIMIT $7

-- name: around
-- What an expression can see of an endpoint, and the order keys of its destinations that ask for order.
SELECT e.namespace, e.name, e.spec #>> '{verification,scheme}' AS scheme,
       ARRAY(SELECT id FROM destinations WHERE endpoint_id = e.id AND spec #>> '{ordering,key}' IS NOT NULL ORDER BY id) AS ids,
       ARRAY(
           SELECT spec #>> '{ordering,key}' FROM destinations
           WHERE endpoint_id = e.id AND spec #>> '{ordering,key}' IS NOT NULL ORDER BY id
       ) AS keys
FROM endpoints e WHERE e.id = $1

-- name: events_of
-- What an expression can see of events, in this order, until there are so many bytes, and of the first in any case. One
-- that is gone is there without a body.
WITH found AS MATERIALIZED (SELECT id, received_at, headers, body FROM events WHERE id = ANY ($1::uuid[]))
SELECT id, received_at, headers, body FROM (
    SELECT a.id, a.place, f.received_at, f.headers, f.body,
           sum(coalesce(octet_length(f.body), 0)) OVER (ORDER BY a.place) - coalesce(octet_length(f.body), 0) AS before
    FROM unnest($1::uuid[]) WITH ORDINALITY AS a (id, place) LEFT JOIN found f USING (id)
) AS seen WHERE before < $2 ORDER BY place

-- name: enqueue
-- Exactly one new delivery for each: what this replay has taken is taken by nobody again, nor what another replay or a
-- person is having delivered again already, unless that is wanted ($9). Of what was missing ($8) nothing is replayed.
-- All that is superseded is marked before the first order key is locked, as in a retry, and those are locked in order, like
-- everywhere; within a key the oldest event goes first.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::bytea[])
        AS i (made, delivery_id, event_id, destination_id, order_key)
), free AS (
    INSERT INTO superseded (delivery_id) SELECT delivery_id FROM input ORDER BY delivery_id
    ON CONFLICT DO NOTHING RETURNING delivery_id
), taken AS (
    INSERT INTO replayed (replay_id, delivery_id, made) SELECT $1, delivery_id, made FROM input
    WHERE (SELECT count(*) FROM free) >= 0 AND ($9 OR delivery_id IN (SELECT delivery_id FROM free))
    AND (NOT $8 OR NOT EXISTS (
        SELECT FROM deliveries d WHERE d.event_id = input.event_id AND d.destination_id = input.destination_id
    ))
    ON CONFLICT (replay_id, delivery_id) DO NOTHING
    RETURNING made
)
INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, expires_at, replay_of, order_key)
SELECT i.made, i.event_id, $2, i.destination_id, now() + (p.spec ->> 'max_age')::interval,
       CASE WHEN NOT $8 THEN i.delivery_id END, i.order_key
FROM input i JOIN taken USING (made)
JOIN destinations t ON t.id = i.destination_id JOIN policies p ON p.id = t.policy_id
ORDER BY i.destination_id, i.order_key, i.event_id, i.delivery_id
RETURNING id

-- name: settle
-- Which of the new deliveries have ended meanwhile, so many of them at a time. One whose row is gone ended long ago.
WITH looked AS MATERIALIZED (
    SELECT ctid AS place, made FROM replayed
    WHERE replay_id = $1 AND outcome IS NULL AND made > $2 ORDER BY made LIMIT $3
), found AS MATERIALIZED (
    SELECT l.place, coalesce((SELECT state FROM deliveries d WHERE d.id = l.made), 'exhausted') AS state FROM looked l
), ended AS (
    -- By place, like claims: the statistics of this table are always stale too.
    UPDATE replayed r SET outcome = f.state FROM found f
    WHERE r.ctid = f.place AND f.state IN ('delivered', 'exhausted', 'cancelled')
    RETURNING r.outcome
)
SELECT (SELECT count(*) FROM looked) AS looked,
       (SELECT made FROM looked ORDER BY made DESC LIMIT 1) AS last,
       (SELECT count(*) FROM ended WHERE outcome = 'delivered') AS delivered,
       (SELECT count(*) FROM ended WHERE outcome <> 'delivered') AS failed

-- name: forget_made
-- What a finished replay has made of what is told by the deliveries themselves.
DELETE FROM replayed WHERE ctid = ANY (ARRAY(
    SELECT m.ctid FROM replays r JOIN replayed m ON m.replay_id = r.id WHERE r.completed_at IS NOT NULL LIMIT $1
))

-- name: forget_superseded
DELETE FROM superseded WHERE ctid = ANY (ARRAY(SELECT ctid FROM superseded WHERE at < $1 LIMIT $2))

-- name: forget
-- Whatever a removed replay could have selected is gone with its retention, so it may be forgotten that it ever was. One
-- that a person asked for is removed by nobody once it is complete, and selects nothing from then on.
DELETE FROM replays WHERE removed_at < $1 OR asked AND completed_at < $1

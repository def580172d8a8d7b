-- name: claim
-- For each destination its oldest due deliveries, at most as many as it has room for, so that no destination's backlog
-- hides another's. The lease counts by the database's clock: deliverers need not agree on the time.
WITH claimed AS (
    UPDATE deliveries_live AS d
    SET state = 'sending', attempts = d.attempts + 1, lease_id = $3, lease_expires_at = now() + $4
    -- By place, not by id: these rows are locked, so they stay there, and stay pending. No other condition: one that an
    -- index knows would have all of that index read, and each row looked for in the list.
    WHERE d.ctid = ANY (ARRAY(
        SELECT due.place
        FROM unnest($1::uuid[], $2::int[]) AS want (destination_id, room),
        LATERAL (
            SELECT ctid AS place FROM deliveries_live
            WHERE state = 'pending' AND destination_id = want.destination_id AND due_at <= now() AND NOT held
            ORDER BY due_at LIMIT want.room FOR UPDATE SKIP LOCKED
        ) AS due
    ))
    RETURNING d.id, d.event_id, d.endpoint_id, d.destination_id, d.attempts, d.created_at, d.expires_at, d.order_key
)
SELECT c.id, c.event_id, c.endpoint_id, c.destination_id, c.attempts AS number, c.created_at, c.expires_at,
       e.received_at, e.content_type, e.headers, e.body, e.body_hash, e.salt, e.correlation_id, c.order_key
FROM claimed c LEFT JOIN events e ON e.id = c.event_id

-- name: end_gone
-- Claimed, and its event or the body of it is gone with its retention, or it was erased, which leaves no hash either: there
-- is nothing to try, and never will be.
WITH ended AS (
    UPDATE deliveries
    SET state = 'exhausted', attempts = attempts - 1, lease_id = NULL, lease_expires_at = NULL, finished_at = now(),
        last_reason = CASE WHEN EXISTS (SELECT FROM events e WHERE e.id = deliveries.event_id AND e.body_hash IS NULL)
                           THEN 'event_erased' ELSE 'event_gone' END
    WHERE id = ANY ($1::uuid[]) AND state = 'sending' AND lease_id = $2
    RETURNING destination_id, last_reason
)
SELECT p.namespace || '/' || p.name || '/' || t.name AS destination, last_reason
FROM ended JOIN destinations t ON t.id = destination_id JOIN endpoints p ON p.id = t.endpoint_id

-- name: record
-- Every try that was made is recorded, also when its lease was lost meanwhile; only who still holds the lease moves the
-- delivery. The same statement feeds the sequencer, so no attempt can stay out of the log.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::int[], $7::timestamptz[], $8::interval[],
        $9::text[], $10::text[], $11::text[], $12::bytea[], $13::bytea[], $14::bytea[], $15::int[], $16::json[],
        $17::bytea[], $18::bigint[], $19::bytea[], $20::bytea[], $21::text[], $22::text[], $23::bytea[], $24::bytea[],
        $25::bytea[], $26::uuid[], $27::text[], $28::interval[]
    ) AS i (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome, reason, url,
            payload_hash, payload_commitment, signature_digest, response_status, response_headers, response_body,
            response_size, response_digest, sent_hash, detail, acknowledgement, acknowledgement_base,
            acknowledgement_key, acknowledgement_signature, lease_id, state, retry_in)
), recorded AS (
    INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome,
                          reason, url, payload_hash, payload_commitment, signature_digest, response_status,
                          response_headers, response_body, response_size, response_digest, acknowledgement,
                          acknowledgement_base, acknowledgement_key, acknowledgement_signature, sent_hash, detail)
    SELECT id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome, reason, url,
           payload_hash, payload_commitment, signature_digest, response_status, response_headers, response_body,
           response_size, response_digest, acknowledgement, acknowledgement_base, acknowledgement_key,
           acknowledgement_signature, sent_hash, detail
    FROM input
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), queued AS (
    INSERT INTO unsequenced (attempt_id) SELECT id FROM recorded
)
UPDATE deliveries AS d
SET state = i.state, lease_id = NULL, lease_expires_at = NULL, last_reason = i.reason,
    acknowledgement = i.acknowledgement,
    due_at = CASE WHEN i.state = 'pending' THEN now() + i.retry_in ELSE d.due_at END,
    finished_at = CASE WHEN i.state = 'pending' THEN NULL ELSE now() END
FROM input i
WHERE d.id = ANY ($2::uuid[]) AND d.id = i.delivery_id AND d.state = 'sending' AND d.lease_id = i.lease_id
RETURNING i.id

-- name: release
-- Claimed but never tried: back as if nothing had happened. Each by its own lease, here and below: who has lost one and
-- claimed it anew holds both leases.
UPDATE deliveries_live SET state = 'pending', lease_id = NULL, lease_expires_at = NULL, attempts = attempts - 1
WHERE id = ANY ($1::uuid[]) AND state = 'sending' AND lease_id = ($2::uuid[])[array_position($1, id)]

-- name: skip
-- Claimed, and the filter of its destination does not want it: nothing was tried, and nothing will be.
UPDATE deliveries
SET state = 'cancelled', attempts = attempts - 1, lease_id = NULL, lease_expires_at = NULL, finished_at = now(),
    last_reason = 'filtered'
WHERE id = ANY ($1::uuid[]) AND state = 'sending' AND lease_id = ($2::uuid[])[array_position($1, id)]

-- name: renew
-- A try takes long: whoever makes it is alive, and says so. A row that is just being recorded is left alone.
UPDATE deliveries_live SET lease_expires_at = now() + $3
WHERE state = 'sending' AND id = ANY (ARRAY(
    SELECT id FROM deliveries_live
    WHERE id = ANY ($1::uuid[]) AND state = 'sending' AND lease_id = ($2::uuid[])[array_position($1, id)]
    ORDER BY id FOR UPDATE SKIP LOCKED
))

-- name: rescue
-- Whoever held these leases is gone or has hung. A row that is just being recorded is locked, and left alone.
UPDATE deliveries_live
SET state = 'pending', lease_id = NULL, lease_expires_at = NULL, due_at = now(), last_reason = 'lease_expired'
WHERE state = 'sending' AND id = ANY (ARRAY(
    SELECT id FROM deliveries_live WHERE lease_expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED
))

-- name: expire
-- What waited past its age ends here, whatever kept it waiting: every delivery ends. One that was never tried says what
-- lastingly kept it, in the order of kapsel_store.holds: whose fault it is does not change when it ends.
WITH ended AS (
    UPDATE deliveries AS d
    SET state = 'exhausted', finished_at = now(), last_reason = coalesce(d.last_reason, (
        SELECT CASE WHEN t.spec ->> 'suspend' = 'true' THEN 'destination_suspended'
                    WHEN c.disabled_at IS NOT NULL THEN 'destination_disabled'
                    WHEN c.state = 'open' THEN 'circuit_open'
                    WHEN c.state = 'half_open' THEN 'circuit_half_open'
                    ELSE 'never_tried' END
        FROM destinations t LEFT JOIN circuits c ON c.destination_id = t.id WHERE t.id = d.destination_id
    ))
    WHERE state = 'pending' AND id = ANY (ARRAY(
        SELECT id FROM deliveries_live WHERE state = 'pending' AND expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED
    ))
    RETURNING destination_id, last_reason
)
SELECT p.namespace || '/' || p.name || '/' || t.name AS destination, last_reason
FROM ended JOIN destinations t ON t.id = destination_id JOIN endpoints p ON p.id = t.endpoint_id

-- name: cancel_orphans
-- Was being tried when its destination was removed, or came in by a receiver that did not know it yet.
UPDATE deliveries
SET state = 'cancelled', finished_at = now(), last_reason = 'destination_removed'
WHERE state = 'pending' AND id = ANY (ARRAY(
    SELECT d.id FROM destinations t JOIN deliveries_live d ON d.destination_id = t.id AND d.state = 'pending'
    WHERE t.deleted_at IS NOT NULL LIMIT $1 FOR UPDATE OF d SKIP LOCKED
))

-- name: cancel
UPDATE deliveries SET state = 'cancelled', finished_at = now(), last_reason = 'cancelled'
WHERE state = 'pending' AND id = (
    SELECT id FROM deliveries_live WHERE state = 'pending' AND id = $1 FOR UPDATE SKIP LOCKED
)
RETURNING id

-- name: retry
-- Final states never change, so sending again is a new delivery of the same event to the same destination. What is superseded
-- is marked before the order key is locked, like in a replay: so the two wait for each other in no circle.
WITH chosen AS MATERIALIZED (
    SELECT d.id, d.event_id, d.endpoint_id, d.destination_id, d.order_key
    FROM deliveries d JOIN destinations t ON t.id = d.destination_id JOIN events e ON e.id = d.event_id
    WHERE d.id = $1 AND t.deleted_at IS NULL AND e.body IS NOT NULL
), marked AS (
    INSERT INTO superseded (delivery_id) SELECT id FROM chosen ON CONFLICT DO NOTHING RETURNING delivery_id
)
INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, expires_at, replay_of, order_key)
SELECT $2, event_id, endpoint_id, destination_id, now() + $3, id, order_key
FROM chosen WHERE (SELECT count(*) FROM marked) >= 0
RETURNING id

-- name: max_age_of
SELECT d.state, t.deleted_at IS NOT NULL AS removed, p.spec AS policy
FROM deliveries d JOIN destinations t ON t.id = d.destination_id LEFT JOIN policies p ON p.id = t.policy_id
WHERE d.id = $1

-- name: waiting
-- Which destinations have anything pending, by one step in the index for each of them: what a hint means when there are
-- thousands of destinations and few of them have work.
WITH RECURSIVE waiting AS (
    (SELECT destination_id FROM deliveries_live WHERE state = 'pending' ORDER BY destination_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT destination_id FROM deliveries_live
        WHERE state = 'pending' AND destination_id > w.destination_id ORDER BY destination_id LIMIT 1
    ) FROM waiting w WHERE w.destination_id IS NOT NULL
)
SELECT destination_id FROM waiting WHERE destination_id IS NOT NULL

-- name: next_due
SELECT min(d.due_at) - now()
FROM unnest($1::uuid[]) AS want (destination_id),
LATERAL (
    SELECT due_at FROM deliveries_live
    WHERE state = 'pending' AND destination_id = want.destination_id ORDER BY due_at LIMIT 1
) AS d

-- name: depth
-- Due is what a deliverer could take at this moment if there were one more: not what waits for its next try, and nothing
-- of a destination that is suspended, disabled or behind an open circuit. What goes with others is due when it has waited
-- for them. What was committed while this was asked may have been
-- made after it began: nothing is younger than that.
SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
       count(*) FILTER (WHERE state = 'sending') AS sending,
       greatest(now() - min(created_at) FILTER (WHERE state = 'pending'), interval '0') AS oldest_pending_age,
       greatest(now() - min(due_at + coalesce(gathers, interval '0')) FILTER (
           WHERE state = 'pending' AND due_at <= now() AND destination_id NOT IN (
               SELECT destination_id FROM circuits WHERE state <> 'closed' OR disabled_at IS NOT NULL
               UNION ALL SELECT id FROM destinations WHERE spec ->> 'suspend' = 'true'
           )
       ), interval '0') AS oldest_due_age,
       (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'deliveries_live'::regclass) AS dead_tuples,
       (SELECT sum(n_live_tup)::bigint FROM pg_stat_user_tables WHERE relid IN (
           'events_default'::regclass, 'attempts_default'::regclass, 'deliveries_final_default'::regclass
       )) AS strays
FROM deliveries_live LEFT JOIN (
    SELECT id, (spec -> 'batch' ->> 'interval')::interval AS gathers FROM destinations WHERE spec ? 'batch'
) AS together (destination_id, gathers) USING (destination_id)

-- name: get
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement,
       d.replay_of
FROM deliveries d JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
WHERE d.id = $1

-- name: page
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement,
       d.replay_of
FROM deliveries d JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
WHERE d.id < $1 AND d.id >= $2
  AND ($4::text[] IS NULL OR d.state = ANY ($4))
  AND ($5::uuid IS NULL OR d.endpoint_id = $5)
ORDER BY d.id DESC LIMIT $3

-- name: page_live
-- Pending and sending ones are few, however many deliveries there have been.
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement,
       d.replay_of
FROM deliveries_live d JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
WHERE d.id < $1 AND d.id >= $2
  AND ($4::text[] IS NULL OR d.state = ANY ($4))
  AND ($5::uuid IS NULL OR d.endpoint_id = $5)
ORDER BY d.id DESC LIMIT $3

-- name: page_not_delivered
-- The condition stands here in words, because the index over these few is found by it alone.
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement,
       d.replay_of
FROM deliveries d JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
WHERE d.id < $1 AND d.id >= $2 AND d.state <> 'delivered'
  AND ($4::text[] IS NULL OR d.state = ANY ($4))
  AND ($5::uuid IS NULL OR d.endpoint_id = $5)
ORDER BY d.id DESC LIMIT $3

-- name: page_of_event
-- They are few, and found before they are put in order: a plan that is kept may read all of them by their ids.
WITH of_event AS MATERIALIZED (SELECT * FROM deliveries WHERE event_id = $6 AND id >= $2)
SELECT d.id, d.event_id, d.endpoint_id, p.namespace, p.name, d.destination_id, t.name AS destination, d.state, d.attempts,
       d.created_at, d.due_at, d.expires_at, d.finished_at, d.last_reason, d.acknowledgement,
       d.replay_of
FROM of_event d JOIN endpoints p ON p.id = d.endpoint_id JOIN destinations t ON t.id = d.destination_id
WHERE d.id < $1
  AND ($4::text[] IS NULL OR d.state = ANY ($4))
  AND ($5::uuid IS NULL OR d.endpoint_id = $5)
ORDER BY d.id DESC LIMIT $3

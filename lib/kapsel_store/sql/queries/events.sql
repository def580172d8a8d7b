-- name: insert
-- One statement, one durable commit for many webhooks: claim the idempotency keys, store what is new, queue its
-- deliveries. Keys are taken in order, so that two receivers never wait for each other in a circle.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::json[], $6::bytea[], $7::bytea[], $8::bytea[],
        $9::bytea[], $10::interval[], $11::text[]
    ) AS i (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, key, span, correlation_id)
), first_seen AS (
    INSERT INTO idempotency (endpoint_id, key, event_id, expires_at)
    SELECT endpoint_id, key, id, now() + span FROM input WHERE key IS NOT NULL ORDER BY endpoint_id, key
    ON CONFLICT (endpoint_id, key) DO UPDATE SET event_id = excluded.event_id, expires_at = excluded.expires_at
    WHERE idempotency.expires_at <= now()
    RETURNING event_id
), stored AS (
    INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, idempotency_key, correlation_id)
    SELECT id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, key, correlation_id
    FROM input WHERE key IS NULL OR id IN (SELECT event_id FROM first_seen)
    RETURNING id
), queued AS (
    INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, expires_at)
    SELECT d.id, d.event_id, d.endpoint_id, d.destination_id, now() + d.max_age
    FROM unnest($12::uuid[], $13::uuid[], $14::uuid[], $15::uuid[], $16::interval[])
        AS d (id, event_id, endpoint_id, destination_id, max_age)
    WHERE d.event_id IN (SELECT id FROM stored)
)
-- A hint in the same transaction spares a round trip, and makes all that do so wait for each other's commits.
SELECT id, CASE WHEN $17::text IS NOT NULL THEN pg_notify('kapsel_deliveries', $17)::text END FROM stored

-- name: insert_ordered
-- The same for a batch in which some deliveries have an order key. Whoever has one takes its place in line here: the row
-- of a key stays locked until the commit, so the places of a key are in the order of the commits, whoever makes them.
-- Keys of both kinds are locked in order, and all idempotency keys before all order keys.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::json[], $6::bytea[], $7::bytea[], $8::bytea[],
        $9::bytea[], $10::interval[], $11::text[]
    ) AS i (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, key, span, correlation_id)
), first_seen AS (
    INSERT INTO idempotency (endpoint_id, key, event_id, expires_at)
    SELECT endpoint_id, key, id, now() + span FROM input WHERE key IS NOT NULL ORDER BY endpoint_id, key
    ON CONFLICT (endpoint_id, key) DO UPDATE SET event_id = excluded.event_id, expires_at = excluded.expires_at
    WHERE idempotency.expires_at <= now()
    RETURNING event_id
), stored AS (
    INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, idempotency_key, correlation_id)
    SELECT id, endpoint_id, received_at, content_type, headers, body, body_hash, salt, key, correlation_id
    FROM input WHERE key IS NULL OR id IN (SELECT event_id FROM first_seen)
    RETURNING id
), wanted AS MATERIALIZED (
    SELECT d.id, d.event_id, d.endpoint_id, d.destination_id, d.max_age, d.order_key, d.shown,
           row_number() OVER line AS place, count(*) OVER (PARTITION BY d.destination_id, d.order_key) AS taken
    FROM unnest($12::uuid[], $13::uuid[], $14::uuid[], $15::uuid[], $16::interval[], $18::bytea[], $19::text[])
        WITH ORDINALITY
        AS d (id, event_id, endpoint_id, destination_id, max_age, order_key, shown, position)
    WHERE d.event_id IN (SELECT id FROM stored)
    WINDOW line AS (PARTITION BY d.destination_id, d.order_key ORDER BY d.position)
), placed AS (
    INSERT INTO turns AS t (destination_id, key, shown, head, last)
    SELECT destination_id, order_key, shown, 1, taken FROM wanted
    WHERE order_key IS NOT NULL AND place = 1 ORDER BY destination_id, order_key
    ON CONFLICT (destination_id, key) DO UPDATE SET last = t.last + excluded.last
    RETURNING t.destination_id, t.key, t.head, t.last
), queued AS (
    INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, expires_at, due_at, order_key, order_number, held)
    SELECT w.id, w.event_id, w.endpoint_id, w.destination_id, now() + w.max_age,
           CASE WHEN p.last - w.taken + w.place > p.head THEN '3000-01-01 00:00:00+00' ELSE now() END,
           w.order_key, p.last - w.taken + w.place, coalesce(p.last - w.taken + w.place > p.head, false)
    FROM wanted w LEFT JOIN placed p ON p.destination_id = w.destination_id AND p.key = w.order_key
)
SELECT id, CASE WHEN $17::text IS NOT NULL THEN pg_notify('kapsel_deliveries', $17)::text END FROM stored

-- name: first_seen
-- A statement of its own: the one above cannot see keys that another receiver committed while it ran.
SELECT i.endpoint_id, i.key, i.event_id
FROM unnest($1::uuid[], $2::bytea[]) AS asked (endpoint_id, key) JOIN idempotency i USING (endpoint_id, key)

-- name: get
SELECT e.id, e.endpoint_id, p.namespace, p.name, e.received_at, e.content_type, e.headers, e.body, e.body_hash,
       e.correlation_id, x.requested_at AS erased_at
FROM events e JOIN endpoints p ON p.id = e.endpoint_id LEFT JOIN erasures x ON x.event_id = e.id WHERE e.id = $1

-- name: page
SELECT e.id, e.endpoint_id, p.namespace, p.name, e.received_at, e.content_type, length(e.body) AS size, e.body_hash,
       e.correlation_id
FROM events e JOIN endpoints p ON p.id = e.endpoint_id
WHERE e.id < $1 AND e.id >= $2 ORDER BY e.id DESC LIMIT $3

-- name: page_of_endpoint
SELECT e.id, e.endpoint_id, p.namespace, p.name, e.received_at, e.content_type, length(e.body) AS size, e.body_hash,
       e.correlation_id
FROM events e JOIN endpoints p ON p.id = e.endpoint_id
WHERE e.id < $1 AND e.id >= $2 AND e.endpoint_id = $4 ORDER BY e.id DESC LIMIT $3

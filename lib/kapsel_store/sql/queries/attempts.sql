-- name: get
-- Columns by name, here and below: a later version may add some before this process is replaced.
-- An attempt may have a leaf in a log that was frozen, and another one in the log after it, which counts.
SELECT a.id, a.delivery_id, a.event_id, a.endpoint_id, a.destination_id, a.number, a.started_at, a.duration, a.outcome,
       a.reason, a.detail, a.url, a.payload_hash, a.payload_commitment, a.sent_hash, a.signature_digest, a.response_status,
       a.response_headers, a.response_body, a.response_size, a.response_digest, a.acknowledgement,
       a.acknowledgement_base, a.acknowledgement_key, a.acknowledgement_signature,
       p.namespace, p.name, t.name AS destination, l.leaf_index
FROM attempts a JOIN endpoints p ON p.id = a.endpoint_id JOIN destinations t ON t.id = a.destination_id
LEFT JOIN LATERAL (SELECT leaf_index FROM leaves WHERE attempt_id = a.id ORDER BY log_id DESC LIMIT 1) l ON true
WHERE a.id = $1

-- name: page
SELECT a.id, a.delivery_id, a.event_id, a.endpoint_id, a.destination_id, a.number, a.started_at, a.duration, a.outcome,
       a.reason, a.detail, a.url, a.payload_hash, a.payload_commitment, a.sent_hash, a.signature_digest, a.response_status,
       NULL::text AS response_headers, NULL::bytea AS response_body, a.response_size, a.response_digest,
       a.acknowledgement, NULL::bytea AS acknowledgement_base, a.acknowledgement_key,
       NULL::bytea AS acknowledgement_signature,
       p.namespace, p.name, t.name AS destination, l.leaf_index
FROM attempts a JOIN endpoints p ON p.id = a.endpoint_id JOIN destinations t ON t.id = a.destination_id
LEFT JOIN LATERAL (SELECT leaf_index FROM leaves WHERE attempt_id = a.id ORDER BY log_id DESC LIMIT 1) l ON true
WHERE a.id < $1 AND a.id >= $2 AND ($4::uuid IS NULL OR a.endpoint_id = $4)
ORDER BY a.id DESC LIMIT $3

-- name: page_of_delivery
-- They are few, and found before they are put in order: a plan that is kept would read all of them by their ids, until it
-- has come by those of the delivery. So it is with those of an event.
WITH made AS MATERIALIZED (SELECT * FROM attempts WHERE delivery_id = $4 AND id >= $2)
SELECT a.id, a.delivery_id, a.event_id, a.endpoint_id, a.destination_id, a.number, a.started_at, a.duration, a.outcome,
       a.reason, a.detail, a.url, a.payload_hash, a.payload_commitment, a.sent_hash, a.signature_digest, a.response_status,
       a.response_headers, a.response_body, a.response_size, a.response_digest, a.acknowledgement,
       a.acknowledgement_base, a.acknowledgement_key, a.acknowledgement_signature,
       p.namespace, p.name, t.name AS destination, l.leaf_index
FROM made a JOIN endpoints p ON p.id = a.endpoint_id JOIN destinations t ON t.id = a.destination_id
LEFT JOIN LATERAL (SELECT leaf_index FROM leaves WHERE attempt_id = a.id ORDER BY log_id DESC LIMIT 1) l ON true
WHERE a.id < $1
ORDER BY a.id DESC LIMIT $3

-- name: page_of_event
WITH made AS MATERIALIZED (
    SELECT * FROM attempts
    WHERE delivery_id = ANY (ARRAY(SELECT id FROM deliveries WHERE event_id = $4 AND id >= $5)) AND id >= $2
)
SELECT a.id, a.delivery_id, a.event_id, a.endpoint_id, a.destination_id, a.number, a.started_at, a.duration, a.outcome,
       a.reason, a.detail, a.url, a.payload_hash, a.payload_commitment, a.sent_hash, a.signature_digest, a.response_status,
       a.response_headers, a.response_body, a.response_size, a.response_digest, a.acknowledgement,
       a.acknowledgement_base, a.acknowledgement_key, a.acknowledgement_signature,
       p.namespace, p.name, t.name AS destination, l.leaf_index
FROM made a JOIN endpoints p ON p.id = a.endpoint_id JOIN destinations t ON t.id = a.destination_id
LEFT JOIN LATERAL (SELECT leaf_index FROM leaves WHERE attempt_id = a.id ORDER BY log_id DESC LIMIT 1) l ON true
WHERE a.id < $1
ORDER BY a.id DESC LIMIT $3

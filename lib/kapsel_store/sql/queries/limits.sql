-- name: read_slots
SELECT destination_id, version, grants, clock_timestamp() AS read_at
FROM unnest($1::uuid[]) AS want (destination_id) LEFT JOIN slots USING (destination_id)

-- name: swap_slots
-- Only what nobody has changed since it was read; in the order of ids, so that two of these never wait for each other.
INSERT INTO slots (destination_id, version, grants)
SELECT destination_id, version + 1, grants
FROM unnest($1::uuid[], $2::bigint[], $3::jsonb[]) AS s (destination_id, version, grants) ORDER BY destination_id
ON CONFLICT (destination_id) DO UPDATE SET version = excluded.version, grants = excluded.grants
WHERE slots.version = excluded.version - 1
RETURNING destination_id

-- name: read_buckets
SELECT id, version, tokens, filled_at, outstanding, clock_timestamp() AS read_at
FROM unnest($1::uuid[]) AS want (id) LEFT JOIN buckets USING (id)

-- name: swap_buckets
INSERT INTO buckets (id, version, tokens, filled_at, outstanding)
SELECT id, version + 1, tokens, filled_at, outstanding
FROM unnest($1::uuid[], $2::bigint[], $3::float8[], $4::timestamptz[], $5::jsonb[])
     AS b (id, version, tokens, filled_at, outstanding) ORDER BY id
ON CONFLICT (id) DO UPDATE
SET version = excluded.version, tokens = excluded.tokens, filled_at = excluded.filled_at,
    outstanding = excluded.outstanding
WHERE buckets.version = excluded.version - 1
RETURNING id

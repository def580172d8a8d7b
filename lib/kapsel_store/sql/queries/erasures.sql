-- name: erase
SELECT known, is_first, erased_at, cancelled, under_way, tries, without_leaf FROM erase_event($1)

-- name: get
SELECT requested_at FROM erasures WHERE event_id = $1

-- name: due
SELECT event_id FROM erasures WHERE next_at <= now() AND event_id <> ALL ($2::uuid[]) ORDER BY next_at LIMIT $1

-- name: incomplete
SELECT count(*) FROM erasures WHERE NOT complete

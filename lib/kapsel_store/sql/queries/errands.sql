-- name: ask
-- So many open certificates at most: strangers can name some that are none. Who wants a confirmation has proved itself.
INSERT INTO errands (url, kind) SELECT $1, $2
WHERE $2 = 'confirmation'
OR (SELECT count(*) FROM (SELECT FROM errands WHERE done_at IS NULL AND kind = 'certificate' LIMIT $3) AS open) < $3
ON CONFLICT (url) DO NOTHING

-- name: find
SELECT answer, failure FROM errands WHERE url = $1

-- name: take
-- A deliverer that dies on its way leaves the errand to whoever comes after this pause. Confirmations do not queue behind
-- what strangers ask for.
UPDATE errands SET tries = tries + 1, next_at = now() + interval '15 s' * power(2, least(tries, 8))
WHERE url = (
    SELECT url FROM errands WHERE done_at IS NULL AND next_at <= now()
    ORDER BY kind = 'confirmation' DESC, next_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING url, kind, tries

-- name: finish
UPDATE errands SET done_at = now(), answer = $2, failure = $3 WHERE url = $1

-- name: prune
-- A certificate stays; a refusal is forgotten soon, for what was not there may be there later.
DELETE FROM errands WHERE done_at < now() - CASE WHEN failure IS NULL THEN interval '1 day' ELSE interval '1 minute' END
AND (kind = 'confirmation' OR failure IS NOT NULL)

-- name: tell
-- Inside the transaction of a change: the listeners hear of it when it is committed.
SELECT pg_notify($1, '')

-- name: hint
-- On its own, after the fact: a hint may be lost, so its commit need not wait for the disk. (A transaction that notifies
-- always writes a commit record.)
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)

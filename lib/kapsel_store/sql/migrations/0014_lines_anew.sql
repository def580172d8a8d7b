-- As in 0005, but that only the turns of lines are passed whose rows could be locked. A line that somebody else has just
-- ended may begin anew while this waits for the locks of others: its notes are left to who ended what they are of, or to
-- the next sweep. Else a place that is taken at that moment would be in a line that is deleted, and wait for ever.
CREATE OR REPLACE FUNCTION pass_turns(destinations uuid[], keys bytea[]) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    ready uuid[];
    passed int;
BEGIN
    -- What a line has left that was deleted like that is of nobody's turn.
    DELETE FROM ended_turns e USING unnest(destinations, keys) AS k (destination_id, key)
    WHERE e.destination_id = k.destination_id AND e.key = k.key AND NOT EXISTS (
        SELECT FROM turns t WHERE t.destination_id = k.destination_id AND t.key = k.key
    );

    SELECT array_agg(t.destination_id), array_agg(t.key) INTO destinations, keys FROM (
        SELECT DISTINCT destination_id, key FROM unnest(destinations, keys) AS k (destination_id, key) ORDER BY 1, 2
    ) AS k, LATERAL (
        SELECT t.destination_id, t.key FROM turns t
        WHERE t.destination_id = k.destination_id AND t.key = k.key FOR UPDATE
    ) AS t;

    WITH ended AS (
        DELETE FROM ended_turns e USING unnest(destinations, keys) AS k (destination_id, key)
        WHERE e.destination_id = k.destination_id AND e.key = k.key
        RETURNING e.destination_id, e.key, e.number, e.delivery_id, e.blocks
    )
    UPDATE turns t SET blocked_by = e.delivery_id, blocked_at = now()
    FROM ended e
    WHERE e.blocks AND t.destination_id = e.destination_id AND t.key = e.key AND t.head = e.number
        AND t.blocked_by IS NULL;

    WITH line AS MATERIALIZED (
        SELECT t.destination_id, t.key, t.head, n.id, n.order_number
        FROM unnest(destinations, keys) AS k (destination_id, key)
        CROSS JOIN LATERAL (
            SELECT t.destination_id, t.key, t.head FROM turns t
            WHERE t.destination_id = k.destination_id AND t.key = k.key AND t.blocked_by IS NULL
                -- Ended since the notes above were taken, and it may block: whoever ended it passes the turn once more.
                AND NOT EXISTS (SELECT FROM ended_turns e WHERE e.destination_id = t.destination_id AND e.key = t.key)
            LIMIT 1
        ) AS t
        LEFT JOIN LATERAL (
            SELECT d.id, d.order_number FROM deliveries_live d
            WHERE d.destination_id = t.destination_id AND d.order_key = t.key
            ORDER BY d.destination_id, d.order_key, d.order_number LIMIT 1
        ) AS n ON true
    ), moved AS (
        UPDATE turns t SET head = l.order_number FROM line l
        WHERE t.destination_id = l.destination_id AND t.key = l.key AND l.order_number > l.head
    ), over AS (
        DELETE FROM turns t USING line l
        WHERE t.destination_id = l.destination_id AND t.key = l.key AND l.id IS NULL
    )
    SELECT array_agg(id) INTO ready FROM line WHERE id IS NOT NULL;
    -- Who is being cancelled at this moment ends this function with an error, and it is called once more.
    UPDATE deliveries_live SET held = false, due_at = now() WHERE id = ANY (ready) AND state = 'pending' AND held;
    GET DIAGNOSTICS passed = ROW_COUNT;
    RETURN passed;
END $$;
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION pass_turns(uuid[], bytea[]) SET search_path = %I, pg_temp', current_schema());
END $$;

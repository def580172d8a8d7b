-- Order by key: deliveries of one key go to their destination one after the other, in the order in which they were
-- accepted. A delivery without a key has null in both new columns, takes no lock and is in no new index.

ALTER TABLE deliveries
    ADD COLUMN order_key bytea,
    ADD COLUMN order_number bigint,
    -- Waits for those of its key that came before it. Such a row is due in a thousand years, so that a claim does not
    -- even read it, however many there are.
    ADD COLUMN held boolean NOT NULL DEFAULT false,
    -- Not valid means not looked for in the deliveries that there are, which have no key; new ones are held to it.
    ADD CONSTRAINT deliveries_order_key_check CHECK (length(order_key) = 16) NOT VALID,
    ADD CONSTRAINT held_is_not_sent CHECK (NOT held OR state <> 'sending') NOT VALID,
    ADD CONSTRAINT held_has_a_place CHECK (NOT held OR num_nonnulls(order_key, order_number) = 2) NOT VALID;
CREATE INDEX deliveries_in_order ON deliveries_live (destination_id, order_key, order_number) WHERE order_key IS NOT NULL;

-- Whose turn it is: a row for each key that anybody waits in, is sent in, or that is blocked. Who takes a place or passes
-- the turn holds the row's lock until its commit, so the numbers of a key are in the order of the commits. Who locks
-- several locks them in the order of the primary key.
CREATE TABLE turns (
    destination_id uuid NOT NULL,
    key            bytea NOT NULL CHECK (length(key) = 16),
    shown          text,
    head           bigint NOT NULL CHECK (head > 0),
    last           bigint NOT NULL CHECK (last >= head),
    blocked_by     uuid,
    blocked_at     timestamptz,
    PRIMARY KEY (destination_id, key),
    CONSTRAINT blocked_since CHECK ((blocked_by IS NULL) = (blocked_at IS NULL))
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1, fillfactor = 50
);
CREATE INDEX turns_blocked ON turns (destination_id, key) WHERE blocked_by IS NOT NULL;

-- What has ended with a key, written by the very statement that ends it, whichever that is, and taken out when the turn
-- was passed. Writing it waits for nobody.
CREATE TABLE ended_turns (
    destination_id uuid NOT NULL,
    key            bytea NOT NULL,
    number         bigint NOT NULL,
    delivery_id    uuid NOT NULL,
    blocks         boolean NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1
);
CREATE INDEX ended_turns_by_key ON ended_turns (destination_id, key);

-- A delivery whose event is gone or erased can never be sent: it blocks nobody.
CREATE FUNCTION end_turn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO ended_turns (destination_id, key, number, delivery_id, blocks)
    VALUES (
        OLD.destination_id, OLD.order_key, OLD.order_number, OLD.id,
        NEW.state = 'exhausted' AND coalesce(NEW.last_reason, '') NOT IN ('event_gone', 'event_erased') AND EXISTS (
            SELECT FROM destinations t WHERE t.id = OLD.destination_id AND t.deleted_at IS NULL
                AND t.spec #>> '{ordering,on_exhausted}' = 'Block'
        )
    );
    RETURN NEW;
END $$;
CREATE TRIGGER deliveries_end_turn BEFORE UPDATE ON deliveries_live FOR EACH ROW
    WHEN (OLD.order_key IS NOT NULL AND NEW.state IN ('delivered', 'exhausted', 'cancelled'))
    EXECUTE FUNCTION end_turn();

-- Who comes with a key and without a number gets in line by itself: what is sent once more goes last, except that what
-- blocks its key goes first, and the key is blocked no longer.
CREATE FUNCTION take_turn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    first bigint;
BEGIN
    UPDATE turns SET blocked_by = NULL, blocked_at = NULL
    WHERE destination_id = NEW.destination_id AND key = NEW.order_key AND blocked_by = NEW.replay_of
    RETURNING head INTO NEW.order_number;
    IF NOT FOUND THEN
        INSERT INTO turns AS t (destination_id, key, head, last) VALUES (NEW.destination_id, NEW.order_key, 1, 1)
        ON CONFLICT (destination_id, key) DO UPDATE SET last = t.last + 1
        RETURNING last, head INTO NEW.order_number, first;
        NEW.held := NEW.order_number > first;
    END IF;
    IF NEW.held THEN
        NEW.due_at := '3000-01-01 00:00:00+00';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deliveries_take_turn BEFORE INSERT ON deliveries_live FOR EACH ROW
    WHEN (NEW.order_key IS NOT NULL AND NEW.order_number IS NULL)
    EXECUTE FUNCTION take_turn();

-- Passes the turn of these keys to whoever is next. The statements after the lock see what was committed before it was
-- given, and nobody gets in line while it is held, so no turn is lost, and none is given twice.
CREATE FUNCTION pass_turns(destinations uuid[], keys bytea[]) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    ready uuid[];
    passed int;
BEGIN
    PERFORM FROM (
        SELECT DISTINCT destination_id, key FROM unnest(destinations, keys) AS k (destination_id, key) ORDER BY 1, 2
    ) AS k, LATERAL (
        SELECT FROM turns t WHERE t.destination_id = k.destination_id AND t.key = k.key FOR UPDATE
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
        FROM (SELECT DISTINCT destination_id, key FROM unnest(destinations, keys) AS k (destination_id, key)) AS k
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
REVOKE ALL ON FUNCTION pass_turns(uuid[], bytea[]) FROM PUBLIC;
-- Whose names these mean is settled here, whatever whoever calls them has set.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION end_turn() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION take_turn() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION pass_turns(uuid[], bytea[]) SET search_path = %I, pg_temp', current_schema());
END $$;

-- As in 0005, but that what has ended and would block its key as soon as the turn is passed is known here already: what stands
-- for it takes its place, and nobody will block the key in its name. Else a retry in that moment, or after a crash before the
-- turn was passed, would wait behind what it stands for.
CREATE OR REPLACE FUNCTION take_turn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    first bigint;
    ends boolean;
BEGIN
    IF NEW.replay_of IS NOT NULL THEN
        -- Locked before it is looked at, so that the turn is passed before or after both.
        SELECT head INTO first FROM turns WHERE destination_id = NEW.destination_id AND key = NEW.order_key FOR UPDATE;
        DELETE FROM ended_turns
        WHERE destination_id = NEW.destination_id AND key = NEW.order_key AND number = first
            AND delivery_id = NEW.replay_of AND blocks;
        ends := FOUND;
        UPDATE turns SET blocked_by = NULL, blocked_at = NULL
        WHERE destination_id = NEW.destination_id AND key = NEW.order_key AND (ends OR blocked_by = NEW.replay_of)
        RETURNING head INTO NEW.order_number;
    END IF;
    IF NEW.order_number IS NULL THEN
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
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION take_turn() SET search_path = %I, pg_temp', current_schema());
END $$;

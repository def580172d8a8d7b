-- Bodies go earlier than hashes: what is over for its endpoint is emptied row by row, long before its day is dropped.

-- How far the events of an endpoint have been emptied; so nothing is ever looked at twice.
CREATE TABLE emptied (
    endpoint_id uuid PRIMARY KEY,
    up_to       uuid NOT NULL
);

-- As in 0003, and one exception more: the answers that were got for an endpoint go when its retention is over. What was
-- sent, what a leaf is made of and what a destination signed stays.
CREATE OR REPLACE FUNCTION check_erased() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := to_jsonb(OLD);
    becomes jsonb := to_jsonb(NEW);
    erasable text;
BEGIN
    IF OLD.endpoint_id::text = current_setting('kapsel.emptying', true)
       AND num_nonnulls(NEW.response_headers, NEW.response_body) = 0
       AND was - '{response_headers,response_body}'::text[] = becomes - '{response_headers,response_body}'::text[] THEN
        RETURN NEW;
    END IF;
    FOREACH erasable IN ARRAY TG_ARGV LOOP
        IF becomes -> erasable = 'null' THEN
            was := was - erasable;
            becomes := becomes - erasable;
        END IF;
    END LOOP;
    IF was <> becomes OR OLD.event_id::text IS DISTINCT FROM current_setting('kapsel.erasing', true) THEN
        RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

-- A delivery that the filter of its destination does not want ends while it is leased: only who has read the event can
-- tell. The state table of 0001 with that transition: kapsel_store.states.TRANSITIONS.
CREATE OR REPLACE FUNCTION check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (
        OLD.state = 'pending' AND NEW.state IN ('sending', 'exhausted', 'cancelled')
        OR OLD.state = 'sending' AND NEW.state IN ('delivered', 'pending', 'exhausted', 'cancelled')
    ) THEN
        RAISE EXCEPTION 'delivery % is %: it cannot become %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

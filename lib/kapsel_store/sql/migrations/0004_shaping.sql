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

-- What was sent if a transform made something else of the event than what came: payload_hash is that of the event.
-- Not valid means not looked for in the attempts that there are, which have none; new ones are held to it.
ALTER TABLE attempts
    ADD COLUMN sent_hash bytea,
    ADD CONSTRAINT attempts_sent_hash_check CHECK (length(sent_hash) = 32) NOT VALID;

-- It could be compared with a guess of the event like payload_hash, and is forgotten with it. Triggers of one kind fire in
-- the order of their names: this one before the one that checks what is forgotten.
CREATE FUNCTION forget_sent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.sent_hash := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER attempts_forget_sent BEFORE UPDATE ON attempts FOR EACH ROW
    WHEN (NEW.payload_hash IS NULL AND NEW.sent_hash IS NOT NULL) EXECUTE FUNCTION forget_sent();
DROP TRIGGER attempts_only_erased ON attempts;
CREATE TRIGGER attempts_only_erased BEFORE UPDATE ON attempts FOR EACH ROW
    EXECUTE FUNCTION check_erased(
        'payload_hash', 'sent_hash', 'signature_digest', 'response_headers', 'response_body', 'response_digest',
        'acknowledgement_base', 'acknowledgement_key', 'acknowledgement_signature'
    );

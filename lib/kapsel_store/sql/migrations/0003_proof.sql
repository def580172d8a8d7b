-- Proof of delivery, complete: leaves that are no attempts, keys of a log over time, erasure, witnesses, anchors and
-- acknowledgements.
--
-- What takes long, for it reads whole tables, comes first and keeps webhooks waiting for nothing: only the sequencer waits.
-- What webhooks flow through is locked last, all at once, and nothing is read while it is.

-- The log (attestor, sequencer). -----------------------------------------------------------------------------------

-- In the order in which a batch takes them: what is made below locks them, too, and would meet a batch that has begun.
LOCK TABLE logs, heads IN SHARE ROW EXCLUSIVE MODE;

-- A log also states what happens to itself: which log it continues, which key follows which.
-- A leaf that no head covers when its log is frozen says nothing to anybody: its attempt gets one in the next log, too.
CREATE UNIQUE INDEX leaves_of_attempts ON leaves (attempt_id, log_id);

-- Attempts that could not be put into the log, beside their rows in unsequenced: tried again when they are due.
CREATE TABLE parked (
    attempt_id uuid PRIMARY KEY,
    reason     text NOT NULL,
    tries      int NOT NULL DEFAULT 1 CHECK (tries > 0),
    parked_at  timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL
);

-- What was found wrong stays said: a log goes on when the owner says so (`kapsel log rebuild --unfreeze`), for no component.
CREATE FUNCTION refuse_unfreezing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'the log % is frozen, and stays so for %', OLD.origin, current_user
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER logs_stay_frozen BEFORE UPDATE ON logs FOR EACH ROW
    WHEN (OLD.frozen_reason IS NOT NULL AND NEW.frozen_reason IS DISTINCT FROM OLD.frozen_reason)
    EXECUTE FUNCTION refuse_unfreezing();

-- Keys of a log. ---------------------------------------------------------------------------------------------------

-- Every key that a log was ever signed with, or has announced, and when: what configuration forgets, old proofs need.
CREATE TABLE log_keys (
    log_id        int NOT NULL REFERENCES logs,
    number        int NOT NULL CHECK (number > 0),
    public_key    bytea NOT NULL CHECK (length(public_key) = 32),
    not_before_ms bigint NOT NULL CHECK (not_before_ms >= 0),
    not_after_ms  bigint CHECK (not_after_ms >= not_before_ms),
    announced_in  bigint CHECK (announced_in >= 0),
    key_id        uuid,
    PRIMARY KEY (log_id, number),
    UNIQUE (log_id, public_key)
);
CREATE TRIGGER log_keys_no_delete BEFORE DELETE ON log_keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- A key only ends, once and for good: a head that it signs later would be outside what auditors were told.
CREATE TRIGGER log_keys_only_end BEFORE UPDATE ON log_keys FOR EACH ROW
    WHEN (OLD.not_after_ms IS NOT NULL OR NEW.not_after_ms IS NULL
          OR (OLD.log_id, OLD.number, OLD.public_key, OLD.not_before_ms, OLD.announced_in, OLD.key_id) IS DISTINCT FROM
             (NEW.log_id, NEW.number, NEW.public_key, NEW.not_before_ms, NEW.announced_in, NEW.key_id))
    EXECUTE FUNCTION refuse_change();
-- The keys of the heads that there are; of several in one log, only the newest still signs.
INSERT INTO log_keys (log_id, number, public_key, not_before_ms, not_after_ms)
SELECT log_id, row_number() OVER earlier, public_key, first,
       CASE WHEN lead(first) OVER earlier IS NOT NULL THEN last END
FROM (SELECT log_id, public_key, min(timestamp_ms) AS first, max(timestamp_ms) AS last
      FROM heads GROUP BY log_id, public_key) used
WINDOW earlier AS (PARTITION BY log_id ORDER BY last);

-- What there was before. -------------------------------------------------------------------------------------------

-- Everybody who waits for a lock waits behind whoever waits longer. So it is tried for less than the second after which
-- Postgres looks for deadlocks, and given back, for as long as somebody reads for minutes.
DO $$ BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR try IN 1..600 LOOP
        BEGIN
            LOCK TABLE events, deliveries, attempts, leaves, keys IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF try = 600 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5 + random());
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', '0', true);
END $$;

ALTER TABLE leaves ALTER COLUMN attempt_id DROP NOT NULL,
    DROP CONSTRAINT leaves_attempt_id_key, ADD CONSTRAINT leaves_of_attempts UNIQUE USING INDEX leaves_of_attempts;

-- Where a key is that kapsel does not hold; what opens the way to it is sealed, like every secret.
ALTER TABLE keys ADD COLUMN backend jsonb;

-- Erasure. ---------------------------------------------------------------------------------------------------------

-- An event can be forgotten: what it said, and whatever could be compared with a guess of it. What stays are ids, times,
-- states, commitments that say nothing without the salt, and the hash of each leaf.
ALTER TABLE events ALTER COLUMN headers DROP NOT NULL, ALTER COLUMN body_hash DROP NOT NULL;
ALTER TABLE attempts ALTER COLUMN payload_hash DROP NOT NULL;

-- Which events are forgotten. A row lives as long as its event, because something of it can always come late: a try that
-- was under way is recorded when it ends, and gets its leaf after that.
CREATE TABLE erasures (
    event_id     uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now(),
    complete     boolean NOT NULL DEFAULT false,
    next_at      timestamptz NOT NULL
);
CREATE INDEX erasures_due ON erasures (next_at);
CREATE INDEX erasures_incomplete ON erasures (event_id) WHERE NOT complete;

-- The one exception from what 0001 forbids: these columns of an attempt may become null, in erase_event alone.
CREATE FUNCTION check_erased() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := to_jsonb(OLD);
    becomes jsonb := to_jsonb(NEW);
    erasable text;
BEGIN
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
DROP TRIGGER attempts_append_only ON attempts;
CREATE TRIGGER attempts_append_only BEFORE DELETE ON attempts FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attempts_only_erased BEFORE UPDATE ON attempts FOR EACH ROW
    EXECUTE FUNCTION check_erased(
        'payload_hash', 'signature_digest', 'response_headers', 'response_body', 'response_digest',
        'acknowledgement_base', 'acknowledgement_key', 'acknowledgement_signature'
    );

-- Forgets an event as far as that can be at this moment, and says what cannot yet; done again it goes on from there. It
-- runs with the rights of the schema's owner: no component may change these rows by itself.
CREATE FUNCTION erase_event(
    wanted uuid,
    OUT known boolean, OUT is_first boolean, OUT erased_at timestamptz, OUT cancelled int, OUT under_way int,
    OUT tries int, OUT without_leaf int
) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    tried uuid[];
    waiting uuid[];
BEGIN
    SELECT count(*) > 0 INTO known FROM events WHERE id = wanted;
    IF NOT known THEN
        DELETE FROM erasures WHERE event_id = wanted;
        RETURN;
    END IF;
    INSERT INTO erasures (event_id, next_at) VALUES (wanted, now()) ON CONFLICT (event_id) DO NOTHING;
    is_first := FOUND;
    PERFORM set_config('kapsel.erasing', wanted::text, true);

    -- What waits is not tried any more. What is being claimed at this moment is met again by the next pass.
    UPDATE deliveries SET state = 'cancelled', finished_at = now(), last_reason = 'event_erased'
    WHERE state = 'pending' AND id = ANY (ARRAY(
        SELECT id FROM deliveries_live WHERE event_id = wanted AND state = 'pending' FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS cancelled = ROW_COUNT;
    SELECT count(*) INTO under_way FROM deliveries_live WHERE event_id = wanted;

    UPDATE events
    SET headers = NULL, body = NULL, body_hash = NULL, salt = NULL, idempotency_key = NULL, correlation_id = NULL
    WHERE id = wanted
      AND num_nonnulls(headers, body, body_hash, salt, idempotency_key, correlation_id) > 0;

    tried := ARRAY(
        SELECT a.id FROM deliveries d JOIN attempts a ON a.delivery_id = d.id WHERE d.event_id = wanted
    );
    tries := cardinality(tried);
    -- Where there is no log, nothing is to be proven: what has no leaf gets none.
    IF (SELECT count(*) FROM configuration WHERE log IS NOT NULL) = 0 THEN
        DELETE FROM unsequenced WHERE attempt_id = ANY (tried);
    END IF;
    -- What cannot be put into the log keeps nothing for the sake of it.
    DELETE FROM unsequenced u USING parked p WHERE u.attempt_id = ANY (tried) AND p.attempt_id = u.attempt_id;
    DELETE FROM parked WHERE attempt_id = ANY (tried);
    -- Its leaf is made of the hashes, so they stay until it has one; the response goes at once.
    waiting := ARRAY(SELECT attempt_id FROM unsequenced WHERE attempt_id = ANY (tried));
    without_leaf := cardinality(waiting);
    UPDATE attempts SET response_headers = NULL, response_body = NULL
    WHERE id = ANY (waiting) AND num_nonnulls(response_headers, response_body) > 0;
    UPDATE attempts
    SET payload_hash = NULL, signature_digest = NULL, response_headers = NULL, response_body = NULL,
        response_digest = NULL, acknowledgement_base = NULL, acknowledgement_key = NULL,
        acknowledgement_signature = NULL
    WHERE id = ANY (tried) AND id <> ALL (waiting) AND num_nonnulls(
        payload_hash, signature_digest, response_headers, response_body, response_digest, acknowledgement_base
    ) > 0;
    UPDATE leaves SET leaf = NULL WHERE attempt_id = ANY (tried) AND leaf IS NOT NULL;
    PERFORM set_config('kapsel.erasing', '', true);

    -- Soon, while something is missing; later ever more seldom, for what nobody expects any more.
    UPDATE erasures
    SET complete = under_way + without_leaf = 0,
        next_at = now() + greatest(
            least(now() - requested_at, CASE WHEN under_way + without_leaf > 0 THEN interval '1 minute' END),
            interval '1 second'
        )
    WHERE event_id = wanted
    RETURNING requested_at INTO erased_at;
END $$;
REVOKE ALL ON FUNCTION erase_event(uuid) FROM PUBLIC;
-- Whose names it means is settled here, whatever whoever calls it has set.
DO $$ BEGIN EXECUTE format('ALTER FUNCTION erase_event(uuid) SET search_path = %I, pg_temp', current_schema()); END $$;

-- Anchors. ---------------------------------------------------------------------------------------------------------

-- Heads that calendars were asked to date, and what they have said so far: a whole OpenTimestamps file, which only
-- grows. The nonce stands here before anybody is asked, so asking again after a crash is asking the same.
CREATE TABLE anchors (
    log_id       int NOT NULL,
    timestamp_ms bigint NOT NULL,
    tree_size    bigint NOT NULL CHECK (tree_size > 0),
    nonce        bytea NOT NULL CHECK (length(nonce) = 16),
    ots          bytea CHECK (length(ots) BETWEEN 1 AND 65536),
    height       bigint CHECK (height >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,
    next_at      timestamptz NOT NULL DEFAULT now(),
    tries        int NOT NULL DEFAULT 0 CHECK (tries >= 0),
    complete     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (log_id, timestamp_ms),
    FOREIGN KEY (log_id, timestamp_ms) REFERENCES heads,
    CHECK (height IS NULL OR ots IS NOT NULL),
    CHECK ((height IS NULL) = (confirmed_at IS NULL)),
    CHECK (height IS NOT NULL OR NOT complete)
);
CREATE INDEX anchors_by_size ON anchors (log_id, tree_size);
CREATE INDEX anchors_by_age ON anchors (log_id, created_at);
CREATE INDEX anchors_due ON anchors (next_at) WHERE NOT complete;
CREATE INDEX anchors_pending ON anchors (log_id, created_at) WHERE height IS NULL;
CREATE TRIGGER anchors_no_delete BEFORE DELETE ON anchors FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- What was promised once can be fulfilled, and what was confirmed stays so.
CREATE TRIGGER anchors_only_grow BEFORE UPDATE ON anchors FOR EACH ROW
    WHEN (OLD.complete OR (NEW.height IS NULL AND OLD.height IS NOT NULL)
          OR length(NEW.ots) < length(OLD.ots) OR (NEW.ots IS NULL AND OLD.ots IS NOT NULL)
          OR (OLD.log_id, OLD.timestamp_ms, OLD.tree_size, OLD.nonce, OLD.created_at)
             IS DISTINCT FROM (NEW.log_id, NEW.timestamp_ms, NEW.tree_size, NEW.nonce, NEW.created_at))
    EXECUTE FUNCTION refuse_change();

-- Acknowledgements. ------------------------------------------------------------------------------------------------

-- What a destination signed of an attempt: the result of looking for it, null if the destination declares nothing or did
-- not take the delivery, and the evidence, which goes into the leaf.
-- Not valid means not looked for in the attempts that there are, which have nothing of it; new ones are held to it.
ALTER TABLE attempts
    ADD COLUMN acknowledgement text,
    ADD COLUMN acknowledgement_base bytea,
    ADD COLUMN acknowledgement_key bytea,
    ADD COLUMN acknowledgement_signature bytea,
    ADD CONSTRAINT attempts_acknowledgement_check
        CHECK (acknowledgement IN ('acknowledged', 'missing', 'invalid', 'no_key')) NOT VALID,
    ADD CONSTRAINT attempts_acknowledgement_base_check
        CHECK (length(acknowledgement_base) BETWEEN 1 AND 8192) NOT VALID,
    ADD CONSTRAINT attempts_acknowledgement_key_check CHECK (length(acknowledgement_key) = 32) NOT VALID,
    ADD CONSTRAINT attempts_acknowledgement_signature_check CHECK (length(acknowledgement_signature) = 64) NOT VALID,
    ADD CONSTRAINT acknowledged_with_evidence CHECK (
        num_nonnulls(acknowledgement_base, acknowledgement_key, acknowledgement_signature)
            = CASE WHEN acknowledgement = 'acknowledged' AND payload_hash IS NOT NULL THEN 3 ELSE 0 END
    ) NOT VALID;

-- Of the last attempt, so that a list of deliveries need not look at attempts.
ALTER TABLE deliveries ADD COLUMN acknowledgement text;

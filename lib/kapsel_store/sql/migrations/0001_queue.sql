-- The configuration, the queue and the log of kapsel. Run by kapsel_store.migrate inside one transaction, with
-- search_path set to the target schema; no statement names a schema, so that several can live in one database.

-- Configuration: written by the plan alone, read by every process. ------------------------------------------------

CREATE TABLE configuration (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation bigint NOT NULL,
    digest     bytea NOT NULL CHECK (length(digest) = 32),
    relay      jsonb NOT NULL,
    log        jsonb,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE policies (
    id         uuid PRIMARY KEY,
    generation bigint NOT NULL,
    spec       jsonb NOT NULL UNIQUE
);

CREATE TABLE endpoints (
    id         uuid PRIMARY KEY,
    namespace  text NOT NULL,
    name       text NOT NULL,
    generation bigint NOT NULL,
    retention  interval NOT NULL,
    spec       jsonb NOT NULL,
    deleted_at timestamptz
);
-- A name may be used again after its endpoint is gone; the id never is.
CREATE UNIQUE INDEX endpoints_by_name ON endpoints (namespace, name) WHERE deleted_at IS NULL;

CREATE TABLE destinations (
    id          uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    name        text NOT NULL,
    policy_id   uuid NOT NULL REFERENCES policies,
    generation  bigint NOT NULL,
    spec        jsonb NOT NULL,
    deleted_at  timestamptz
);
CREATE UNIQUE INDEX destinations_by_name ON destinations (endpoint_id, name) WHERE deleted_at IS NULL;

CREATE TABLE keys (
    id         uuid PRIMARY KEY,
    namespace  text NOT NULL,
    name       text NOT NULL,
    version    int NOT NULL CHECK (version > 0),
    algorithm  text NOT NULL CHECK (algorithm IN ('HMAC-SHA256', 'HMAC-SHA512', 'Ed25519')),
    sealed     bytea NOT NULL,
    public     bytea CHECK (length(public) = 32),
    not_before timestamptz NOT NULL,
    not_after  timestamptz CHECK (not_after > not_before),
    generation bigint NOT NULL,
    UNIQUE (namespace, name, version)
);

-- Which process runs which generation: a heartbeat, so that "ready" can mean loaded and not merely written.
CREATE TABLE processes (
    component  text NOT NULL CHECK (component IN ('receiver', 'deliverer', 'attestor', 'console')),
    instance   text NOT NULL,
    address    text NOT NULL,
    generation bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, instance)
) WITH (fillfactor = 50);

-- Events: immutable. The id is a UUID version 7, and ranges of the id are the partitions, so that the id alone finds
-- the partition and old ones are dropped whole. ------------------------------------------------------------------

CREATE TABLE events (
    id              uuid NOT NULL,
    endpoint_id     uuid NOT NULL,
    received_at     timestamptz NOT NULL,
    content_type    text NOT NULL,
    headers         json NOT NULL,
    body            bytea,
    body_hash       bytea NOT NULL CHECK (length(body_hash) = 32),
    salt            bytea CHECK (length(salt) = 32),
    idempotency_key bytea CHECK (length(idempotency_key) = 32),
    correlation_id  text,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- The body arrives as it will be read: compressing 1 KiB of it on the way in only costs time.
ALTER TABLE events ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX events_by_endpoint ON events (endpoint_id, id);
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- What was seen inside its window: the one place that is unique across the partitions of events.
CREATE TABLE idempotency (
    endpoint_id uuid NOT NULL,
    key         bytea NOT NULL CHECK (length(key) = 32),
    event_id    uuid NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (endpoint_id, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX idempotency_by_expiry ON idempotency USING brin (expires_at) WITH (pages_per_range = 16, autosummarize = on);

-- Deliveries: the live ones in a small partition of their own, the queue; the final ones move out of it by the very
-- update that ends them, into ranges of their id. --------------------------------------------------------------------

CREATE TABLE deliveries (
    id               uuid NOT NULL,
    event_id         uuid NOT NULL,
    endpoint_id      uuid NOT NULL,
    destination_id   uuid NOT NULL,
    state            text NOT NULL DEFAULT 'pending'
                     CHECK (state IN ('pending', 'sending', 'delivered', 'exhausted', 'cancelled')),
    attempts         int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    due_at           timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    lease_id         uuid,
    lease_expires_at timestamptz,
    finished_at      timestamptz,
    last_reason      text,
    replay_of        uuid,
    PRIMARY KEY (id, state),
    CONSTRAINT leased_while_sending CHECK (
        (state = 'sending') = (lease_id IS NOT NULL) AND (state = 'sending') = (lease_expires_at IS NOT NULL)
    ),
    CONSTRAINT finished_when_final CHECK ((state IN ('delivered', 'exhausted', 'cancelled')) = (finished_at IS NOT NULL)),
    CONSTRAINT delivered_by_an_attempt CHECK (state <> 'delivered' OR attempts > 0)
) PARTITION BY LIST (state);
CREATE TABLE deliveries_live PARTITION OF deliveries FOR VALUES IN ('pending', 'sending') WITH (
    -- Every row dies young: vacuum it often and at once, or claims wade through the dead.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1, fillfactor = 70
);
CREATE TABLE deliveries_final PARTITION OF deliveries FOR VALUES IN ('delivered', 'exhausted', 'cancelled')
    PARTITION BY RANGE (id);
CREATE TABLE deliveries_final_default PARTITION OF deliveries_final DEFAULT;
CREATE INDEX deliveries_due ON deliveries_live (destination_id, due_at) WHERE state = 'pending';
-- Its condition does not name the state: the statistics of a queue are always stale, and the planner must not take this
-- for a short list when it looks for single deliveries.
CREATE INDEX deliveries_leased ON deliveries_live (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX deliveries_expiring ON deliveries_live (expires_at) WHERE state = 'pending';
CREATE INDEX deliveries_by_event ON deliveries (event_id);
-- What failed is rare and what people look for; a list of it must not wade through all that went well.
CREATE INDEX deliveries_not_delivered ON deliveries_final (id) WHERE state <> 'delivered';

-- The state table once more, where no code can get round it: kapsel_store.states.TRANSITIONS.
CREATE FUNCTION check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (
        OLD.state = 'pending' AND NEW.state IN ('sending', 'exhausted', 'cancelled')
        OR OLD.state = 'sending' AND NEW.state IN ('delivered', 'pending', 'exhausted')
    ) THEN
        RAISE EXCEPTION 'delivery % is %: it cannot become %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
-- Renewing a lease or moving a due time is no transition; a final row takes no update at all.
CREATE TRIGGER deliveries_transitions BEFORE UPDATE ON deliveries FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.state IN ('delivered', 'exhausted', 'cancelled'))
    EXECUTE FUNCTION check_transition();

-- What is known of a destination at run time: its circuit, shared by all deliverers, and whether it was stopped.
CREATE TABLE circuits (
    destination_id    uuid PRIMARY KEY,
    state             text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
    window_started_at timestamptz NOT NULL DEFAULT now(),
    attempts          int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failures          int NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND attempts),
    open_until        timestamptz,
    probes_left       int NOT NULL DEFAULT 0 CHECK (probes_left >= 0),
    probe_successes   int NOT NULL DEFAULT 0 CHECK (probe_successes >= 0),
    disabled_at       timestamptz,
    disabled_reason   text,
    CONSTRAINT closed_or_until CHECK ((state = 'closed') = (open_until IS NULL)),
    CONSTRAINT disabled_with_reason CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) WITH (fillfactor = 50);

-- Attempts: what was tried and what came of it, append-only. ----------------------------------------------------------

CREATE TABLE attempts (
    id                 uuid NOT NULL,
    delivery_id        uuid NOT NULL,
    event_id           uuid NOT NULL,
    endpoint_id        uuid NOT NULL,
    destination_id     uuid NOT NULL,
    number             int NOT NULL CHECK (number > 0),
    started_at         timestamptz NOT NULL,
    duration           interval NOT NULL,
    outcome            text NOT NULL,
    reason             text NOT NULL,
    url                text NOT NULL,
    payload_hash       bytea NOT NULL CHECK (length(payload_hash) = 32),
    payload_commitment bytea CHECK (length(payload_commitment) = 32),
    signature_digest   bytea CHECK (length(signature_digest) = 32),
    response_status    int CHECK (response_status BETWEEN 100 AND 999),
    response_headers   json,
    response_body      bytea,
    response_size      bigint CHECK (response_size >= 0),
    response_digest    bytea CHECK (length(response_digest) = 32),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX attempts_by_delivery ON attempts (delivery_id);
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER attempts_append_only BEFORE UPDATE OR DELETE ON attempts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attempts_no_truncate BEFORE TRUNCATE ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The Merkle log. ------------------------------------------------------------------------------------------------------

-- Attempts without a leaf, written by the statement that records the attempt, taken out by the one that appends the
-- leaf. A narrow table of its own, because marking a wide attempt row would write the row a second time.
CREATE TABLE unsequenced (
    attempt_id uuid PRIMARY KEY
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1
);

CREATE TABLE logs (
    id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin        text NOT NULL UNIQUE,
    tree_size     bigint NOT NULL DEFAULT 0 CHECK (tree_size >= 0),
    root          bytea NOT NULL CHECK (length(root) = 32),
    opened_at     timestamptz NOT NULL DEFAULT now(),
    frozen_reason text
) WITH (fillfactor = 50);

-- No foreign key: a log is never deleted, and checking it for each leaf costs more than storing the leaf.
CREATE TABLE leaves (
    log_id     int NOT NULL,
    leaf_index bigint NOT NULL CHECK (leaf_index >= 0),
    attempt_id uuid NOT NULL UNIQUE,
    leaf       bytea,
    PRIMARY KEY (log_id, leaf_index)
);
ALTER TABLE leaves ALTER COLUMN leaf SET STORAGE EXTERNAL;

CREATE TABLE tiles (
    log_id int NOT NULL REFERENCES logs,
    level  smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    index  bigint NOT NULL CHECK (index >= 0),
    hashes bytea NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (log_id, level, index)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- A tile only grows: what was served once stays true.
CREATE FUNCTION check_tile_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes THEN
        RAISE EXCEPTION 'tile %/% of log % may only grow', OLD.level, OLD.index, OLD.log_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER tiles_grow BEFORE UPDATE ON tiles FOR EACH ROW EXECUTE FUNCTION check_tile_grows();

CREATE TABLE heads (
    log_id        int NOT NULL REFERENCES logs,
    timestamp_ms  bigint NOT NULL CHECK (timestamp_ms > 0),
    tree_size     bigint NOT NULL CHECK (tree_size >= 0),
    root          bytea NOT NULL CHECK (length(root) = 32),
    checkpoint    text NOT NULL,
    sth_signature bytea NOT NULL CHECK (length(sth_signature) = 64),
    public_key    bytea NOT NULL CHECK (length(public_key) = 32),
    published_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, timestamp_ms)
);
CREATE INDEX heads_by_size ON heads (log_id, tree_size, timestamp_ms);
CREATE TRIGGER heads_append_only BEFORE UPDATE OR DELETE ON heads FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Per endpoint: its last sequence number and leaf, so that an omission shows.
CREATE TABLE chains (
    log_id      int NOT NULL REFERENCES logs,
    endpoint_id uuid NOT NULL,
    sequence    bigint NOT NULL CHECK (sequence >= 0),
    leaf_hash   bytea NOT NULL CHECK (length(leaf_hash) = 32),
    PRIMARY KEY (log_id, endpoint_id)
) WITH (fillfactor = 50);

-- Who changed what: append-only, and each row carries the hash of the one before it. -----------------------------------

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}',
    previous bytea NOT NULL CHECK (length(previous) = 32),
    hash     bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

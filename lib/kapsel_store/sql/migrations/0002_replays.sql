-- Replays: one-shot jobs that deliver a selection of events again. Declared by the plan, carried out by deliverers.
-- Only new tables: nothing that webhooks flow through is locked while this is applied.

CREATE TABLE replays (
    -- Declared, and for good but for the last three.
    id                   uuid PRIMARY KEY,
    namespace            text NOT NULL,
    name                 text NOT NULL,
    endpoint_id          uuid NOT NULL,
    destinations         uuid[] CHECK (cardinality(destinations) > 0),
    received_from        timestamptz NOT NULL,
    received_to          timestamptz NOT NULL CHECK (received_to > received_from),
    states               text[] NOT NULL
                         CHECK (cardinality(states) > 0 AND states <@ ARRAY['delivered', 'exhausted', 'cancelled']),
    dry_run              boolean NOT NULL,
    declared_at          timestamptz NOT NULL DEFAULT now(),
    rate                 int NOT NULL CHECK (rate > 0),
    suspend              boolean NOT NULL,
    removed_at           timestamptz,
    -- How far it is. Who works on it holds the row's lock, and moves all of this in the transaction of the work itself.
    next_at              timestamptz NOT NULL DEFAULT now(),
    started_at           timestamptz,
    counted_at           timestamptz,
    enqueued_at          timestamptz,
    completed_at         timestamptz,
    matched              bigint NOT NULL DEFAULT 0,
    enqueued             bigint NOT NULL DEFAULT 0,
    skipped_events       bigint NOT NULL DEFAULT 0,
    skipped_destinations bigint NOT NULL DEFAULT 0,
    delivered            bigint NOT NULL DEFAULT 0,
    failed               bigint NOT NULL DEFAULT 0,
    walked_event         uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    walked_delivery      uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    settled_to           uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    CONSTRAINT counted_when_started CHECK (counted_at IS NULL OR started_at IS NOT NULL),
    CONSTRAINT enqueued_when_counted CHECK (enqueued_at IS NULL OR counted_at IS NOT NULL),
    CONSTRAINT completed_at_the_end CHECK (
        completed_at IS NULL
        OR counted_at IS NOT NULL AND (dry_run OR enqueued_at IS NOT NULL) AND delivered + failed = enqueued
    ),
    CONSTRAINT ended_were_enqueued CHECK (delivered >= 0 AND failed >= 0 AND delivered + failed <= enqueued),
    CONSTRAINT dry_runs_enqueue_nothing CHECK (NOT dry_run OR enqueued = 0)
) WITH (fillfactor = 50);
-- A name may be used again after its replay is gone; the id never is.
CREATE UNIQUE INDEX replays_by_name ON replays (namespace, name) WHERE removed_at IS NULL;
CREATE INDEX replays_open ON replays (next_at) WHERE completed_at IS NULL AND removed_at IS NULL;

-- What a replay has made of which delivery: no delivery gets a second new one from the same replay.
CREATE TABLE replayed (
    replay_id   uuid NOT NULL REFERENCES replays ON DELETE CASCADE,
    delivery_id uuid NOT NULL,
    made        uuid NOT NULL,
    outcome     text CHECK (outcome IN ('delivered', 'exhausted', 'cancelled')),
    PRIMARY KEY (replay_id, delivery_id)
);
CREATE INDEX replayed_open ON replayed (replay_id, made) WHERE outcome IS NULL;

-- Limits that hold for all processes together: who may have how many tries under way, and who took how many tokens.
-- A row is replaced by compare and swap, so nobody waits for a lock; its grants end by this server's clock.

CREATE TABLE slots (
    destination_id uuid PRIMARY KEY,
    version        bigint NOT NULL CHECK (version > 0),
    grants         jsonb NOT NULL CHECK (jsonb_typeof(grants) = 'object') -- holder: [count, wanted, until]
) WITH (fillfactor = 50);

CREATE TABLE buckets (
    id          uuid PRIMARY KEY, -- an endpoint, or a destination
    version     bigint NOT NULL CHECK (version > 0),
    tokens      double precision NOT NULL CHECK (tokens >= 0),
    filled_at   timestamptz NOT NULL,
    outstanding jsonb NOT NULL CHECK (jsonb_typeof(outstanding) = 'object') -- holder: [count, until]
) WITH (fillfactor = 50);

-- A circuit that has closed lets traffic back in by steps; one that only fails is warned of, and disabled at last.
ALTER TABLE circuits
    ADD COLUMN recovering_since timestamptz,
    ADD COLUMN failing_since    timestamptz,
    ADD COLUMN warned_at        timestamptz,
    ADD CONSTRAINT recovering_is_closed CHECK (recovering_since IS NULL OR state = 'closed'),
    ADD CONSTRAINT warned_is_failing CHECK (warned_at IS NULL OR failing_since IS NOT NULL);

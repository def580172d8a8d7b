-- What was not delivered is a question of its own, and what replays may select grows.

-- Deliveries that another one stands for, made anew by a person or a replay: nobody asks any more what became of them.
-- It is also what keeps two replays that run at once from delivering the same one twice.
CREATE TABLE superseded (
    delivery_id uuid PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX superseded_by_age ON superseded USING brin (at);
INSERT INTO superseded (delivery_id) SELECT DISTINCT replay_of FROM deliveries WHERE replay_of IS NOT NULL;

-- What was given up is rare, also where filters end most deliveries as cancelled; by destination, too, for its summary.
CREATE INDEX deliveries_exhausted ON deliveries_final (id) WHERE state = 'exhausted';
CREATE INDEX deliveries_exhausted_by_destination ON deliveries_final (destination_id, id) WHERE state = 'exhausted';

-- Replays that somebody asked the console for are in no manifest, and may share a name with one that is.
ALTER TABLE replays
    ADD COLUMN reasons text[] CHECK (cardinality(reasons) > 0),
    ADD COLUMN missing boolean NOT NULL DEFAULT false,
    ADD COLUMN anyway boolean NOT NULL DEFAULT false,
    ADD COLUMN skipped_pending bigint NOT NULL DEFAULT 0,
    ADD COLUMN asked boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT replays_states_check,
    ADD CONSTRAINT replays_states_check
        CHECK (missing = (cardinality(states) = 0) AND states <@ ARRAY['delivered', 'exhausted', 'cancelled']);
DROP INDEX replays_by_name;
CREATE UNIQUE INDEX replays_by_name ON replays (namespace, name, asked) WHERE removed_at IS NULL;

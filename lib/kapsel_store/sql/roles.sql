-- One role per component with the least it needs; run after every migration, so it says the same thing each time.
-- Roles belong to the whole server: several databases and schemas share them.

DO $$
DECLARE
    component text;
BEGIN
    FOREACH component IN ARRAY ARRAY['kapsel_receiver', 'kapsel_deliverer', 'kapsel_attestor', 'kapsel_console'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = component) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', component);
            END IF;
            IF NOT pg_has_role(current_user, component, 'SET') THEN
                EXECUTE format('GRANT %I TO %I', component, current_user);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another migration made it at this very moment
        END;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), component);
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA :schema FROM kapsel_receiver, kapsel_deliverer, kapsel_attestor, kapsel_console;

-- Every process reads the configuration and says that it is alive.
GRANT SELECT ON configuration, policies, endpoints, destinations, keys TO kapsel_receiver, kapsel_deliverer, kapsel_attestor, kapsel_console;
GRANT SELECT, INSERT, UPDATE, DELETE ON processes TO kapsel_receiver, kapsel_deliverer, kapsel_attestor, kapsel_console;

-- receiver: stores events and their deliveries; may read no body, no delivery, no attempt.
GRANT INSERT ON events TO kapsel_receiver;
GRANT SELECT (id) ON events TO kapsel_receiver;
GRANT INSERT ON deliveries TO kapsel_receiver;
GRANT SELECT, INSERT, UPDATE ON idempotency TO kapsel_receiver;
-- It puts deliveries in line, without seeing what any key is.
GRANT INSERT, SELECT (destination_id, key, head, last), UPDATE (last) ON turns TO kapsel_receiver;

-- deliverer: moves deliveries along and records attempts; changes no event and no attempt.
GRANT SELECT ON events, deliveries, deliveries_live TO kapsel_deliverer;
GRANT UPDATE ON deliveries, deliveries_live TO kapsel_deliverer;
GRANT INSERT ON deliveries TO kapsel_deliverer;
GRANT INSERT ON attempts TO kapsel_deliverer;
GRANT SELECT (id) ON attempts TO kapsel_deliverer;
GRANT INSERT ON unsequenced TO kapsel_deliverer;
GRANT SELECT, INSERT, UPDATE ON circuits TO kapsel_deliverer;
GRANT SELECT ON logs, heads TO kapsel_deliverer;
-- It carries out replays, and declares none: what one is stays as it was declared.
GRANT SELECT ON replays TO kapsel_deliverer;
GRANT UPDATE (
    next_at, started_at, counted_at, enqueued_at, completed_at, matched, enqueued, skipped_events, skipped_destinations,
    skipped_pending, unjudged, delivered, failed, walked_event, walked_delivery, settled_to
) ON replays TO kapsel_deliverer;
GRANT SELECT, INSERT ON replayed, superseded TO kapsel_deliverer;
GRANT UPDATE (outcome) ON replayed TO kapsel_deliverer;
-- The turn is passed by the one function that may.
GRANT SELECT, UPDATE (blocked_by, blocked_at) ON turns TO kapsel_deliverer;
GRANT SELECT, INSERT ON ended_turns TO kapsel_deliverer;
GRANT EXECUTE ON FUNCTION pass_turns(uuid[], bytea[]) TO kapsel_deliverer;

-- It asks providers for what is not here: for that it sees which ids are known, and of which endpoint.
GRANT SELECT (endpoint_id, key, expires_at) ON idempotency TO kapsel_deliverer;
GRANT SELECT, INSERT, UPDATE ON gap_healings TO kapsel_deliverer;
-- Receivers and deliverers share the limits of endpoints and destinations.
GRANT SELECT, INSERT, UPDATE ON buckets TO kapsel_receiver, kapsel_deliverer;
GRANT SELECT, INSERT, UPDATE ON slots TO kapsel_deliverer;
-- The receiver calls nobody. What it needs from outside it asks for here, and the deliverer goes, by the egress rules.
GRANT SELECT, INSERT ON errands TO kapsel_receiver;
GRANT SELECT, UPDATE, DELETE ON errands TO kapsel_deliverer;

-- attestor: reads attempts, writes the log; sees no event.
GRANT SELECT ON attempts TO kapsel_attestor;
GRANT SELECT, DELETE ON unsequenced TO kapsel_attestor;
GRANT SELECT, INSERT, UPDATE ON tiles, chains TO kapsel_attestor;
GRANT SELECT, INSERT, UPDATE (tree_size, root, frozen_reason) ON logs TO kapsel_attestor;
GRANT SELECT, INSERT ON leaves, heads TO kapsel_attestor;
-- What no head covers when a log is frozen waits once more, for the next log.
GRANT INSERT ON unsequenced TO kapsel_attestor;
GRANT SELECT, INSERT, UPDATE, DELETE ON parked TO kapsel_attestor;
GRANT SELECT, INSERT ON log_keys TO kapsel_attestor;
GRANT UPDATE (not_after_ms) ON log_keys TO kapsel_attestor;

GRANT SELECT, INSERT ON anchors TO kapsel_attestor;
GRANT UPDATE (ots, height, confirmed_at, next_at, tries, complete) ON anchors TO kapsel_attestor;

-- console: reads everything, retries by making new deliveries, cancels pending ones, resumes destinations, and has events
-- forgotten by the one function that may.
GRANT SELECT ON events, deliveries, deliveries_live, attempts, circuits, processes, unsequenced, logs, leaves, tiles, heads, chains, audit, replays TO kapsel_console;
GRANT SELECT ON anchors, log_keys TO kapsel_console;
GRANT INSERT ON deliveries, audit TO kapsel_console;
GRANT UPDATE ON deliveries, deliveries_live, circuits TO kapsel_console;
GRANT SELECT ON erasures, parked, slots, buckets TO kapsel_console;
GRANT SELECT, INSERT ON superseded TO kapsel_console;
-- It takes in replays that people ask for, and takes them back; how far one is it leaves to who carries it out.
GRANT INSERT ON replays TO kapsel_console;
GRANT UPDATE (rate, suspend, removed_at, next_at) ON replays TO kapsel_console;
GRANT EXECUTE ON FUNCTION erase_event(uuid) TO kapsel_console;
GRANT SELECT, UPDATE (blocked_by, blocked_at) ON turns TO kapsel_console;
GRANT INSERT ON ended_turns TO kapsel_console;
GRANT EXECUTE ON FUNCTION pass_turns(uuid[], bytea[]) TO kapsel_console;

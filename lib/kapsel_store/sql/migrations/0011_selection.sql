-- Which events a replay means may be said by an expression, and of some it cannot be said.
ALTER TABLE replays
    ADD COLUMN filter text CHECK (length(filter) BETWEEN 1 AND 4096),
    ADD COLUMN unjudged bigint NOT NULL DEFAULT 0 CHECK (unjudged >= 0);

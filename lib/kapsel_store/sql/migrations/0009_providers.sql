-- Gap healing: when a hook of GitHub's was last looked at, and what was found. One row for each endpoint that declares it.
CREATE TABLE gap_healings (
    endpoint_id uuid PRIMARY KEY REFERENCES endpoints ON DELETE CASCADE,
    next_at     timestamptz NOT NULL,
    checked_at  timestamptz,
    reason      text CHECK (length(reason) BETWEEN 1 AND 64),
    message     text CHECK (length(message) <= 1024),
    missing     int NOT NULL DEFAULT 0 CHECK (missing >= 0),
    requested   bigint NOT NULL DEFAULT 0 CHECK (requested >= 0),
    CONSTRAINT checked_with_a_reason CHECK ((checked_at IS NULL) = (reason IS NULL))
);

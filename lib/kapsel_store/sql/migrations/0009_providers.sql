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

-- What a receiver needs from outside, and a deliverer fetches for it: the certificates of SNS, and visits that confirm a
-- subscription. Whoever may ask has proved itself, or named a place that the manifest determines.
CREATE TABLE errands (
    url      text PRIMARY KEY CHECK (length(url) BETWEEN 1 AND 2048),
    kind     text NOT NULL CHECK (kind IN ('certificate', 'confirmation')),
    asked_at timestamptz NOT NULL DEFAULT now(),
    next_at  timestamptz NOT NULL DEFAULT now(),
    tries    int NOT NULL DEFAULT 0 CHECK (tries >= 0),
    done_at  timestamptz,
    answer   bytea CHECK (length(answer) <= 65536),
    failure  text CHECK (length(failure) <= 256),
    CONSTRAINT ended_in_one_way CHECK ((done_at IS NULL) = (num_nonnulls(answer, failure) = 0))
);
CREATE INDEX errands_open ON errands (next_at) WHERE done_at IS NULL;

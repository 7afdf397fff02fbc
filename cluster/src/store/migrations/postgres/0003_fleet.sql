-- Which node settled a record; all zeros: a program that did not say.
ALTER TABLE usage_record ADD COLUMN node UUID NOT NULL
    DEFAULT '00000000-0000-0000-0000-000000000000';

-- Whose the cells are: their column boot holds the origin's number, or, of a program that did not
-- say its node, its boot. So such a program goes on adding to its own cells and reading all.
CREATE TABLE origin (
    number BIGINT NOT NULL PRIMARY KEY,
    node   UUID   NOT NULL,
    boot   BIGINT NOT NULL,
    UNIQUE (node, boot)
);

-- What the origin told of itself while it lived. The cell is the larger one of both.
ALTER TABLE counter_cells ADD COLUMN live BIGINT NOT NULL DEFAULT 0;

-- One row a node, of its newest boot. Times here are the database's own.
CREATE TABLE node_heartbeat (
    node    UUID        NOT NULL PRIMARY KEY,
    boot    BIGINT      NOT NULL,
    name    TEXT        NOT NULL,
    region  TEXT        NOT NULL,
    beat_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

-- Who may do a task now. A term is never given twice.
CREATE TABLE leader_term (
    scope       TEXT        NOT NULL, -- cluster, or a region's name
    task        TEXT        NOT NULL,
    term        BIGINT      NOT NULL,
    node        UUID        NOT NULL,
    boot        BIGINT      NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (scope, task)
) WITH (fillfactor = 50);

-- What came of a task, under its newest term.
CREATE TABLE leader_outcome (
    scope TEXT   NOT NULL,
    task  TEXT   NOT NULL,
    term  BIGINT NOT NULL,
    hash  BYTEA  NOT NULL,
    at_ms BIGINT NOT NULL,
    body  BYTEA  NOT NULL,
    PRIMARY KEY (scope, task)
);

-- Calendar periods that have passed: what their records came to some minutes after the end.
CREATE TABLE usage_sealed (
    counter   TEXT COLLATE "C" NOT NULL,
    epoch     BIGINT NOT NULL,
    amount    NUMERIC NOT NULL, -- over all origins
    ended_ms  BIGINT NOT NULL,
    term      BIGINT NOT NULL,
    sealed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (counter, epoch)
);

-- What was added to them later. Both together are the sum of the charges of all records.
CREATE TABLE usage_late (
    counter TEXT COLLATE "C" NOT NULL,
    epoch   BIGINT NOT NULL,
    amount  NUMERIC NOT NULL,
    term    BIGINT NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX usage_late_by_counter ON usage_late (counter, epoch);

-- Which node settled a record; all zeros: a program that did not say.
ALTER TABLE usage_record ADD COLUMN node BLOB NOT NULL
    DEFAULT x'00000000000000000000000000000000';

-- Whose the cells are: their column boot holds the origin's number, or, of a program that did not
-- say its node, its boot. So such a program goes on adding to its own cells and reading all.
CREATE TABLE origin (
    number INTEGER NOT NULL PRIMARY KEY,
    node   BLOB    NOT NULL,
    boot   INTEGER NOT NULL,
    UNIQUE (node, boot)
) STRICT;

-- What the origin told of itself while it lived. The cell is the larger one of both.
ALTER TABLE counter_cells ADD COLUMN live INTEGER NOT NULL DEFAULT 0;

-- One row a node, of its newest boot. Times here are the machine's own.
CREATE TABLE node_heartbeat (
    node       BLOB    NOT NULL PRIMARY KEY,
    boot       INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    region     TEXT    NOT NULL,
    beat_at_ms INTEGER NOT NULL
) STRICT;

-- Who may do a task now. A term is never given twice.
CREATE TABLE leader_term (
    scope          TEXT    NOT NULL, -- cluster, or a region's name
    task           TEXT    NOT NULL,
    term           INTEGER NOT NULL,
    node           BLOB    NOT NULL,
    boot           INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, task)
) STRICT;

-- What came of a task, under its newest term.
CREATE TABLE leader_outcome (
    scope TEXT    NOT NULL,
    task  TEXT    NOT NULL,
    term  INTEGER NOT NULL,
    hash  BLOB    NOT NULL,
    at_ms INTEGER NOT NULL,
    body  BLOB    NOT NULL,
    PRIMARY KEY (scope, task)
) STRICT;

-- Calendar periods that have passed: what their records came to some minutes after the end.
CREATE TABLE usage_sealed (
    counter  TEXT    NOT NULL,
    epoch    INTEGER NOT NULL,
    amount   INTEGER NOT NULL, -- over all origins
    ended_ms INTEGER NOT NULL,
    term     INTEGER NOT NULL,
    PRIMARY KEY (counter, epoch)
) STRICT, WITHOUT ROWID;

-- What was added to them later. Both together are the sum of the charges of all records.
CREATE TABLE usage_late (
    counter TEXT    NOT NULL,
    epoch   INTEGER NOT NULL,
    amount  INTEGER NOT NULL,
    term    INTEGER NOT NULL
) STRICT;

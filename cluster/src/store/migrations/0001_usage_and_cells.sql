-- One row per settled request. The primary key is what makes a repeated hand-over harmless.
CREATE TABLE usage_record (
    request_id            TEXT    NOT NULL PRIMARY KEY, -- UUID v7: its order is the order of time
    virtual_key           TEXT    NOT NULL,
    team                  TEXT,
    customer              TEXT,
    model_requested       TEXT    NOT NULL,
    model_served          TEXT,
    provider              TEXT,
    credential            TEXT,
    endpoint              TEXT    NOT NULL,
    stream                INTEGER NOT NULL,
    input_tokens          INTEGER NOT NULL, -- buckets are disjoint
    cache_read_tokens     INTEGER NOT NULL,
    cache_write_tokens    INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    reasoning_tokens      INTEGER NOT NULL,
    cost_nano_usd         INTEGER NOT NULL,
    basis                 TEXT    NOT NULL,
    status                INTEGER NOT NULL,
    started_at_ms         INTEGER NOT NULL, -- Unix milliseconds
    first_byte_ms         INTEGER,
    duration_ms           INTEGER NOT NULL,
    attempts              INTEGER NOT NULL,
    end_reason            TEXT    NOT NULL,
    upstream_request_id   TEXT,
    charges               TEXT    NOT NULL  -- JSON array of {counter, epoch, amount, expires_at_ms}
) STRICT;

-- Settled total of one counter in one epoch: the sum of the charges of all rows above.
CREATE TABLE counter_cells (
    counter       TEXT    NOT NULL,
    epoch         INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    amount        INTEGER NOT NULL, -- requests, tokens or nano-dollars, by the counter's unit
    PRIMARY KEY (counter, epoch)
) STRICT, WITHOUT ROWID;

CREATE INDEX counter_cells_by_expiry ON counter_cells (expires_at_ms);

-- Text is compared byte by byte (COLLATE "C"), so that its order is the same on every server.
-- A migration touches tables in the order of this file, as every transaction of a node does.

-- One row per settled request. The primary key is what makes a repeated hand-over harmless.
CREATE TABLE usage_record (
    request_id            TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- UUID v7: its order is the order of time
    seq                   BIGINT  GENERATED ALWAYS AS IDENTITY,  -- the order of coming, within one boot
    boot                  BIGINT  NOT NULL,                      -- who settled it: the boot number of the process
    virtual_key           TEXT    NOT NULL,
    team                  TEXT,
    customer              TEXT,
    model_requested       TEXT    NOT NULL,
    model_served          TEXT,
    provider              TEXT,
    credential            TEXT,
    endpoint              TEXT    NOT NULL,
    stream                BOOLEAN NOT NULL,
    input_tokens          BIGINT  NOT NULL, -- buckets are disjoint
    cache_read_tokens     BIGINT  NOT NULL,
    cache_write_tokens    BIGINT  NOT NULL,
    cache_write_1h_tokens BIGINT  NOT NULL,
    output_tokens         BIGINT  NOT NULL,
    reasoning_tokens      BIGINT  NOT NULL,
    cost_nano_usd         BIGINT  NOT NULL,
    basis                 TEXT    NOT NULL,
    status                INTEGER NOT NULL,
    started_at_ms         BIGINT  NOT NULL, -- Unix milliseconds
    first_byte_ms         BIGINT,
    duration_ms           BIGINT  NOT NULL,
    attempts              BIGINT  NOT NULL,
    end_reason            TEXT    NOT NULL,
    upstream_request_id   TEXT,
    charges               TEXT    NOT NULL  -- JSON array of {counter, epoch, amount, expires_at_ms}
);

CREATE INDEX usage_record_by_boot ON usage_record (boot, seq);

-- Settled total of one counter in one epoch by one boot: the sum of the charges of its rows above.
-- Room in each page lets an addition stay there and leave the indexes alone.
CREATE TABLE counter_cells (
    counter       TEXT COLLATE "C" NOT NULL,
    epoch         BIGINT NOT NULL,
    boot          BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    amount        BIGINT NOT NULL, -- requests, tokens or nano-dollars, by the counter's unit
    PRIMARY KEY (counter, epoch, boot)
) WITH (fillfactor = 60);

CREATE INDEX counter_cells_by_expiry ON counter_cells (expires_at_ms);

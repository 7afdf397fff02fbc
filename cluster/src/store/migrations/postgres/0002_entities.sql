-- The user that a request came from, and the routing rule that chose its target.
ALTER TABLE usage_record ADD COLUMN user_name TEXT;
ALTER TABLE usage_record ADD COLUMN rule TEXT;

-- One row: raised by each transaction that writes entities. Who raises it holds its lock until the
-- commit, so the order of revisions is the order of commits, and so is the order of the log below.
CREATE TABLE entity_revision (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision BIGINT  NOT NULL
);

INSERT INTO entity_revision (one, revision) VALUES (1, 0);

-- What was made through the API. A deleted one stays, without its body: readers go by revision.
CREATE TABLE entity (
    kind          TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    revision      BIGINT NOT NULL, -- of the transaction that wrote it
    body          TEXT,            -- JSON as it was written; NULL: deleted
    changed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE INDEX entity_by_revision ON entity (revision);

-- Who changed what. Each hash covers its row and the hash before it.
CREATE TABLE audit_log (
    seq      BIGINT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    at_ms    BIGINT NOT NULL,
    actor    TEXT   NOT NULL,
    peer     TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    before   TEXT,             -- JSON, secrets masked
    after    TEXT,
    key_id   TEXT,             -- NULL: SHA-256, else HMAC-SHA256 with that key
    previous BYTEA  NOT NULL,
    hash     BYTEA  NOT NULL
);

-- One row: the last of the log, so that a tail that was cut off is missed.
CREATE TABLE audit_head (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    seq    BIGINT  NOT NULL,
    hash   BYTEA   NOT NULL,
    key_id TEXT,
    mac    BYTEA   NOT NULL
);

-- Who settled what: the boot number of the process. 0: before boots were kept.
ALTER TABLE usage_record ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;

-- Settled total of one counter in one epoch by one boot: the sum of the charges of its rows above.
CREATE TABLE counter_cells_of_boots (
    counter       TEXT    NOT NULL,
    epoch         INTEGER NOT NULL,
    boot          INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    amount        INTEGER NOT NULL, -- requests, tokens or nano-dollars, by the counter's unit
    PRIMARY KEY (counter, epoch, boot)
) STRICT, WITHOUT ROWID;

INSERT INTO counter_cells_of_boots (counter, epoch, boot, expires_at_ms, amount)
SELECT counter, epoch, 0, expires_at_ms, amount FROM counter_cells;

DROP TABLE counter_cells;

ALTER TABLE counter_cells_of_boots RENAME TO counter_cells;

CREATE INDEX counter_cells_by_expiry ON counter_cells (expires_at_ms);

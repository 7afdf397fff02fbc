-- Sealed periods are removed when they have been kept for long enough.
CREATE INDEX usage_sealed_by_end ON usage_sealed (ended_ms);
CREATE INDEX usage_late_by_counter ON usage_late (counter, epoch);

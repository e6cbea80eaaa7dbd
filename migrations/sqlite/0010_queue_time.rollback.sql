ALTER TABLE audit DROP COLUMN queue_ms;

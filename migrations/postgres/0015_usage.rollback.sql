DROP INDEX audit_by_record;

ALTER TABLE audit DROP COLUMN recorded_at;

DROP INDEX ledger_uncounted;

ALTER TABLE ledger DROP COLUMN usage_hour;

ALTER TABLE ledger DROP COLUMN backend;

DROP TABLE usage_hours;

-- How long a request waited for a slot of its backend (model.AuditRow); NULL when it had not to.
ALTER TABLE audit ADD COLUMN queue_ms REAL;

ALTER TABLE tenants DROP COLUMN audit_retention_days;

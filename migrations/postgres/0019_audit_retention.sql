-- For how many days the audit rows of a tenant are kept; NULL: as GATEWAY_AUDIT_RETENTION_DAYS says.
ALTER TABLE tenants ADD COLUMN audit_retention_days BIGINT;

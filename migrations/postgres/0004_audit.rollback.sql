DROP INDEX audit_by_tenant_and_time;

DROP INDEX audit_by_time;

DROP TABLE audit;

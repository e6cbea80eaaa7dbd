DROP TABLE audit_removals;

DROP TABLE audit_heads;

DROP TABLE audit_seals;

DROP TRIGGER keys_deleted;

DROP TRIGGER keys_updated;

DROP TRIGGER keys_inserted;

DROP TRIGGER tenants_deleted;

DROP TRIGGER tenants_updated;

DROP TRIGGER tenants_inserted;

DROP TABLE revision;

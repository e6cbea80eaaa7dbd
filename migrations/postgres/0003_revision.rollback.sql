DROP TRIGGER keys_updated ON keys;

DROP TRIGGER keys_changed ON keys;

DROP TRIGGER tenants_changed ON tenants;

DROP FUNCTION raise_revision();

DROP TABLE revision;

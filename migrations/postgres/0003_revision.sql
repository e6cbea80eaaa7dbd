-- One number that grows with every change to tenants and keys, so that a running gateway sees with one cheap
-- read whether what it remembers still holds. Noting a key's last use is no such change.
--
-- The row is locked until the change is committed, so changes become visible in the order of their numbers:
-- who sees a number sees all changes up to it.
CREATE TABLE revision (
    only_row SMALLINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    value BIGINT NOT NULL
);

INSERT INTO revision (only_row, value) VALUES (1, 0);

CREATE FUNCTION raise_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE revision SET value = value + 1;
    RETURN NULL;
END
$$;

CREATE TRIGGER tenants_changed AFTER INSERT OR UPDATE OR DELETE ON tenants
FOR EACH ROW EXECUTE FUNCTION raise_revision();

CREATE TRIGGER keys_changed AFTER INSERT OR DELETE ON keys
FOR EACH ROW EXECUTE FUNCTION raise_revision();

CREATE TRIGGER keys_updated AFTER UPDATE ON keys
FOR EACH ROW WHEN (
    (old.id, old.tenant_id, old.name, old.folded, old.prefix, old.mac, old.argon2, old.created_at,
        old.expires_at, old.revoked_at)
    IS DISTINCT FROM
    (new.id, new.tenant_id, new.name, new.folded, new.prefix, new.mac, new.argon2, new.created_at,
        new.expires_at, new.revoked_at)
)
EXECUTE FUNCTION raise_revision();

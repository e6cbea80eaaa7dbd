-- One number that grows with every change to tenants and keys, so that a running gateway sees with one cheap
-- read whether what it remembers still holds. Noting a key's last use is no such change.
CREATE TABLE revision (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    value INTEGER NOT NULL
) STRICT;

INSERT INTO revision (only_row, value) VALUES (1, 0);

CREATE TRIGGER tenants_inserted AFTER INSERT ON tenants
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER tenants_updated AFTER UPDATE ON tenants
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER tenants_deleted AFTER DELETE ON tenants
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER keys_inserted AFTER INSERT ON keys
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER keys_updated AFTER UPDATE ON keys
WHEN old.id IS NOT new.id OR old.tenant_id IS NOT new.tenant_id OR old.name IS NOT new.name
    OR old.folded IS NOT new.folded OR old.prefix IS NOT new.prefix OR old.mac IS NOT new.mac
    OR old.argon2 IS NOT new.argon2 OR old.created_at IS NOT new.created_at
    OR old.expires_at IS NOT new.expires_at OR old.revoked_at IS NOT new.revoked_at
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER keys_deleted AFTER DELETE ON keys
BEGIN UPDATE revision SET value = value + 1; END;

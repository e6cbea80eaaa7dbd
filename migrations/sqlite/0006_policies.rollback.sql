DROP TRIGGER keys_updated;

CREATE TRIGGER keys_updated AFTER UPDATE ON keys
WHEN old.id IS NOT new.id OR old.tenant_id IS NOT new.tenant_id OR old.name IS NOT new.name
    OR old.folded IS NOT new.folded OR old.prefix IS NOT new.prefix OR old.mac IS NOT new.mac
    OR old.argon2 IS NOT new.argon2 OR old.created_at IS NOT new.created_at
    OR old.expires_at IS NOT new.expires_at OR old.revoked_at IS NOT new.revoked_at
BEGIN UPDATE revision SET value = value + 1; END;

ALTER TABLE tenants DROP COLUMN time_zone;

ALTER TABLE keys DROP COLUMN total_tokens;

ALTER TABLE keys DROP COLUMN monthly_tokens;

ALTER TABLE keys DROP COLUMN daily_tokens;

ALTER TABLE keys DROP COLUMN concurrent;

ALTER TABLE keys DROP COLUMN tpm;

ALTER TABLE keys DROP COLUMN rpm;

ALTER TABLE tenants DROP COLUMN total_tokens;

ALTER TABLE tenants DROP COLUMN monthly_tokens;

ALTER TABLE tenants DROP COLUMN daily_tokens;

ALTER TABLE tenants DROP COLUMN concurrent;

ALTER TABLE tenants DROP COLUMN tpm;

ALTER TABLE tenants DROP COLUMN rpm;

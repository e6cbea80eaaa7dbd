DROP TRIGGER keys_updated ON keys;

CREATE TRIGGER keys_updated AFTER UPDATE ON keys
FOR EACH ROW WHEN (
    (old.id, old.tenant_id, old.name, old.folded, old.prefix, old.mac, old.argon2, old.created_at,
        old.expires_at, old.revoked_at)
    IS DISTINCT FROM
    (new.id, new.tenant_id, new.name, new.folded, new.prefix, new.mac, new.argon2, new.created_at,
        new.expires_at, new.revoked_at)
)
EXECUTE FUNCTION raise_revision();

ALTER TABLE tenants DROP COLUMN time_zone;

ALTER TABLE keys
    DROP COLUMN total_tokens,
    DROP COLUMN monthly_tokens,
    DROP COLUMN daily_tokens,
    DROP COLUMN concurrent,
    DROP COLUMN tpm,
    DROP COLUMN rpm;

ALTER TABLE tenants
    DROP COLUMN total_tokens,
    DROP COLUMN monthly_tokens,
    DROP COLUMN daily_tokens,
    DROP COLUMN concurrent,
    DROP COLUMN tpm,
    DROP COLUMN rpm;

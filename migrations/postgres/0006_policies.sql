-- What an operator allows a tenant, and each of its keys (accounting.Policy). NULL: no bound here; 0 denies.
-- Not beyond 9007199254740991 = 2^53 - 1, the last of the whole numbers that Redis scripts can count to.
ALTER TABLE tenants
    ADD COLUMN rpm BIGINT CHECK (rpm BETWEEN 0 AND 9007199254740991),
    ADD COLUMN tpm BIGINT CHECK (tpm BETWEEN 0 AND 9007199254740991),
    ADD COLUMN concurrent BIGINT CHECK (concurrent BETWEEN 0 AND 9007199254740991),
    ADD COLUMN daily_tokens BIGINT CHECK (daily_tokens BETWEEN 0 AND 9007199254740991),
    ADD COLUMN monthly_tokens BIGINT CHECK (monthly_tokens BETWEEN 0 AND 9007199254740991),
    ADD COLUMN total_tokens BIGINT CHECK (total_tokens BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys
    ADD COLUMN rpm BIGINT CHECK (rpm BETWEEN 0 AND 9007199254740991),
    ADD COLUMN tpm BIGINT CHECK (tpm BETWEEN 0 AND 9007199254740991),
    ADD COLUMN concurrent BIGINT CHECK (concurrent BETWEEN 0 AND 9007199254740991),
    ADD COLUMN daily_tokens BIGINT CHECK (daily_tokens BETWEEN 0 AND 9007199254740991),
    ADD COLUMN monthly_tokens BIGINT CHECK (monthly_tokens BETWEEN 0 AND 9007199254740991),
    ADD COLUMN total_tokens BIGINT CHECK (total_tokens BETWEEN 0 AND 9007199254740991);

-- An IANA name: in it the tenant's days and months begin.
ALTER TABLE tenants ADD COLUMN time_zone TEXT NOT NULL DEFAULT 'UTC';

DROP TRIGGER keys_updated ON keys;

-- As in 0003, and when a limit or budget changes.
CREATE TRIGGER keys_updated AFTER UPDATE ON keys
FOR EACH ROW WHEN (
    (old.id, old.tenant_id, old.name, old.folded, old.prefix, old.mac, old.argon2, old.created_at,
        old.expires_at, old.revoked_at,
        old.rpm, old.tpm, old.concurrent, old.daily_tokens, old.monthly_tokens, old.total_tokens)
    IS DISTINCT FROM
    (new.id, new.tenant_id, new.name, new.folded, new.prefix, new.mac, new.argon2, new.created_at,
        new.expires_at, new.revoked_at,
        new.rpm, new.tpm, new.concurrent, new.daily_tokens, new.monthly_tokens, new.total_tokens)
)
EXECUTE FUNCTION raise_revision();

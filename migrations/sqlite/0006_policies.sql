-- What an operator allows a tenant, and each of its keys (accounting.Policy). NULL: no bound here; 0 denies.
-- Not beyond 9007199254740991 = 2^53 - 1, the last of the whole numbers that Redis scripts can count to.
ALTER TABLE tenants ADD COLUMN rpm INTEGER CHECK (rpm BETWEEN 0 AND 9007199254740991);

ALTER TABLE tenants ADD COLUMN tpm INTEGER CHECK (tpm BETWEEN 0 AND 9007199254740991);

ALTER TABLE tenants ADD COLUMN concurrent INTEGER CHECK (concurrent BETWEEN 0 AND 9007199254740991);

ALTER TABLE tenants ADD COLUMN daily_tokens INTEGER CHECK (daily_tokens BETWEEN 0 AND 9007199254740991);

ALTER TABLE tenants ADD COLUMN monthly_tokens INTEGER CHECK (monthly_tokens BETWEEN 0 AND 9007199254740991);

ALTER TABLE tenants ADD COLUMN total_tokens INTEGER CHECK (total_tokens BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN rpm INTEGER CHECK (rpm BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN tpm INTEGER CHECK (tpm BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN concurrent INTEGER CHECK (concurrent BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN daily_tokens INTEGER CHECK (daily_tokens BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN monthly_tokens INTEGER CHECK (monthly_tokens BETWEEN 0 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN total_tokens INTEGER CHECK (total_tokens BETWEEN 0 AND 9007199254740991);

-- An IANA name: in it the tenant's days and months begin.
ALTER TABLE tenants ADD COLUMN time_zone TEXT NOT NULL DEFAULT 'UTC';

DROP TRIGGER keys_updated;

-- As in 0003, and when a limit or budget changes.
CREATE TRIGGER keys_updated AFTER UPDATE ON keys
WHEN old.id IS NOT new.id OR old.tenant_id IS NOT new.tenant_id OR old.name IS NOT new.name
    OR old.folded IS NOT new.folded OR old.prefix IS NOT new.prefix OR old.mac IS NOT new.mac
    OR old.argon2 IS NOT new.argon2 OR old.created_at IS NOT new.created_at
    OR old.expires_at IS NOT new.expires_at OR old.revoked_at IS NOT new.revoked_at
    OR old.rpm IS NOT new.rpm OR old.tpm IS NOT new.tpm OR old.concurrent IS NOT new.concurrent
    OR old.daily_tokens IS NOT new.daily_tokens OR old.monthly_tokens IS NOT new.monthly_tokens
    OR old.total_tokens IS NOT new.total_tokens
BEGIN UPDATE revision SET value = value + 1; END;

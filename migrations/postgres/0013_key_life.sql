-- What keys and tenants go through. A key that was rotated and its successor are one account: the id that
-- limits, budgets, the ledger and the audit log know them by is that of the first of them.
-- `allow_ip` is a comma list of networks, NULL for any address. Times are seconds since the epoch, UTC.
ALTER TABLE tenants ADD COLUMN suspended_at DOUBLE PRECISION;

ALTER TABLE keys
    ADD COLUMN account_id TEXT NOT NULL DEFAULT '',
    ADD COLUMN allow_ip TEXT;

UPDATE keys SET account_id = id;

CREATE INDEX keys_by_account ON keys (account_id);

-- As keys_updated; of its own, so that each step can be told from the others.
CREATE TRIGGER keys_life_updated AFTER UPDATE ON keys
FOR EACH ROW WHEN ((old.account_id, old.allow_ip) IS DISTINCT FROM (new.account_id, new.allow_ip))
EXECUTE FUNCTION raise_revision();

DROP TRIGGER keys_life_updated;

DROP INDEX keys_by_account;

ALTER TABLE keys DROP COLUMN allow_ip;

ALTER TABLE keys DROP COLUMN account_id;

ALTER TABLE tenants DROP COLUMN suspended_at;

DROP TRIGGER keys_life_updated ON keys;

DROP INDEX keys_by_account;

ALTER TABLE keys
    DROP COLUMN allow_ip,
    DROP COLUMN account_id;

ALTER TABLE tenants DROP COLUMN suspended_at;

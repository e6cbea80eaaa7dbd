DROP TRIGGER keys_models_updated;

ALTER TABLE tenants DROP COLUMN allow_cloud;

ALTER TABLE keys DROP COLUMN max_output_tokens;

ALTER TABLE keys DROP COLUMN max_num_ctx;

ALTER TABLE keys DROP COLUMN models;

ALTER TABLE tenants DROP COLUMN max_output_tokens;

ALTER TABLE tenants DROP COLUMN max_num_ctx;

ALTER TABLE tenants DROP COLUMN models;

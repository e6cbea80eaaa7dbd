DROP TRIGGER keys_models_updated ON keys;

ALTER TABLE tenants
    DROP COLUMN allow_cloud,
    DROP COLUMN max_output_tokens,
    DROP COLUMN max_num_ctx,
    DROP COLUMN models;

ALTER TABLE keys
    DROP COLUMN max_output_tokens,
    DROP COLUMN max_num_ctx,
    DROP COLUMN models;

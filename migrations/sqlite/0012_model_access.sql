-- Which models a tenant and each of its keys may use (model.ModelPolicy): a comma list of patterns over canonical
-- names, and bounds of one request in tokens. NULL: no bound here; both always apply.
ALTER TABLE tenants ADD COLUMN models TEXT;

ALTER TABLE tenants ADD COLUMN max_num_ctx INTEGER CHECK (max_num_ctx BETWEEN 1 AND 9007199254740991);

ALTER TABLE tenants ADD COLUMN max_output_tokens INTEGER
    CHECK (max_output_tokens BETWEEN 1 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN models TEXT;

ALTER TABLE keys ADD COLUMN max_num_ctx INTEGER CHECK (max_num_ctx BETWEEN 1 AND 9007199254740991);

ALTER TABLE keys ADD COLUMN max_output_tokens INTEGER
    CHECK (max_output_tokens BETWEEN 1 AND 9007199254740991);

-- Whether its prompts may go to models that another machine answers for.
ALTER TABLE tenants ADD COLUMN allow_cloud INTEGER NOT NULL DEFAULT 0 CHECK (allow_cloud IN (0, 1));

-- Beside the trigger of 0003, which looks at other columns.
CREATE TRIGGER keys_models_updated AFTER UPDATE OF models, max_num_ctx, max_output_tokens ON keys
WHEN old.models IS NOT new.models OR old.max_num_ctx IS NOT new.max_num_ctx
    OR old.max_output_tokens IS NOT new.max_output_tokens
BEGIN UPDATE revision SET value = value + 1; END;

-- What callers asked and were answered, of keys that opted in: for `log_prompts_s` seconds, then it is gone. All
-- that was said is in `sealed` (AES-256-GCM); what stands beside it says who, and when, as the audit log does.
--
-- The key that it is sealed with is in prompt_keys, wrapped under GATEWAY_SECRET; it is of one account and of a few
-- minutes, and no copy of it is anywhere else. Who destroys it destroys every copy of what it sealed.
-- `prompt_generation` grows with each purge: what was asked before does not come back from anybody's memory.
ALTER TABLE keys
    ADD COLUMN log_prompts_s BIGINT,
    ADD COLUMN prompt_generation BIGINT NOT NULL DEFAULT 0;

CREATE TRIGGER keys_prompts_updated AFTER UPDATE ON keys
FOR EACH ROW WHEN (
    (old.log_prompts_s, old.prompt_generation) IS DISTINCT FROM (new.log_prompts_s, new.prompt_generation)
)
EXECUTE FUNCTION raise_revision();

-- What is deleted leaves dead rows, until they are vacuumed: here with the first of them, not when a fifth is dead.
CREATE TABLE prompt_keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    wrapped BYTEA NOT NULL,
    made_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL
) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0);

CREATE INDEX prompt_keys_by_account ON prompt_keys (tenant_id, account_id);

CREATE INDEX prompt_keys_by_end ON prompt_keys (expires_at);

CREATE TABLE prompts (
    request_id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    prompt_key_id TEXT NOT NULL REFERENCES prompt_keys (id) ON DELETE CASCADE,
    logged_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    sealed BYTEA NOT NULL
) WITH (
    autovacuum_vacuum_threshold = 0,
    autovacuum_vacuum_scale_factor = 0,
    toast.autovacuum_vacuum_threshold = 0,
    toast.autovacuum_vacuum_scale_factor = 0
);

CREATE INDEX prompts_by_account ON prompts (tenant_id, account_id, logged_at);

CREATE INDEX prompts_by_end ON prompts (expires_at);

CREATE INDEX prompts_by_key ON prompts (prompt_key_id);

-- What callers asked and were answered, of keys that opted in: for `log_prompts_s` seconds, then it is gone. All
-- that was said is in `sealed` (AES-256-GCM); what stands beside it says who, and when, as the audit log does.
--
-- The key that it is sealed with is in prompt_keys, wrapped under GATEWAY_SECRET; it is of one account and of a few
-- minutes, and no copy of it is anywhere else. Who destroys it destroys every copy of what it sealed.
-- `prompt_generation` grows with each purge: what was asked before does not come back from anybody's memory.
ALTER TABLE keys ADD COLUMN log_prompts_s INTEGER;

ALTER TABLE keys ADD COLUMN prompt_generation INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER keys_prompts_updated AFTER UPDATE ON keys
WHEN old.log_prompts_s IS NOT new.log_prompts_s OR old.prompt_generation IS NOT new.prompt_generation
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TABLE prompt_keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    made_at REAL NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID, STRICT;

CREATE INDEX prompt_keys_by_account ON prompt_keys (tenant_id, account_id);

CREATE INDEX prompt_keys_by_end ON prompt_keys (expires_at);

CREATE TABLE prompts (
    request_id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    account_id TEXT NOT NULL,
    prompt_key_id TEXT NOT NULL REFERENCES prompt_keys (id) ON DELETE CASCADE,
    logged_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    sealed BLOB NOT NULL
) STRICT;

CREATE INDEX prompts_by_account ON prompts (tenant_id, account_id, logged_at);

CREATE INDEX prompts_by_end ON prompts (expires_at);

CREATE INDEX prompts_by_key ON prompts (prompt_key_id);

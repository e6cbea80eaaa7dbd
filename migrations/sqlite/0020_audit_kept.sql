-- Audit rows are never changed or deleted, save by what removes them on purpose (retention, purge-tenant): it opens
-- the log by a row of `meta`, in its own transaction, so that nobody else ever sees it open. This is for mistakes:
-- whoever can write to the file can do anything, and is found by verify-audit. When a row came in is left out: rows
-- of gateways of an older version are counted later (0015). On Postgres, the rights of roles do this.
CREATE TRIGGER audit_kept_as_it_is BEFORE UPDATE OF
    request_id, received_at_us, tenant_id, key_id, key_prefix, peer, client_request_id, user_agent, method, path,
    operation, surface, model, backend, stream, status, outcome, error_code, prompt_tokens, completion_tokens,
    tokens_estimated, first_token_ms, load_ms, prompt_ms, generation_ms, duration_ms, bytes_in, bytes_out, queue_ms
ON audit WHEN NOT EXISTS (SELECT 1 FROM meta WHERE name = 'audit_open')
BEGIN SELECT RAISE(ABORT, 'audit rows are never changed'); END;

CREATE TRIGGER audit_kept_for_its_time BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE name = 'audit_open')
BEGIN SELECT RAISE(ABORT, 'audit rows are never deleted before their time'); END;

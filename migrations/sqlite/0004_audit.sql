-- One row for each request whose headers were read: metadata only (model.AuditRow, in its order).
-- No foreign keys: a row outlives what it speaks of, and refusals speak of nobody.
CREATE TABLE audit (
    request_id TEXT NOT NULL PRIMARY KEY,
    received_at_us INTEGER NOT NULL,
    tenant_id TEXT,
    key_id TEXT,
    key_prefix TEXT,
    peer TEXT NOT NULL,
    client_request_id TEXT,
    user_agent TEXT,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    operation TEXT,
    surface TEXT NOT NULL,
    model TEXT,
    backend TEXT,
    stream INTEGER NOT NULL,
    status INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_code TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    tokens_estimated INTEGER NOT NULL,
    first_token_ms REAL,
    load_ms REAL,
    prompt_ms REAL,
    generation_ms REAL,
    duration_ms REAL NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (received_at_us);

CREATE INDEX audit_by_tenant_and_time ON audit (tenant_id, received_at_us);

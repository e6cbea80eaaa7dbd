-- One row for each request whose headers were read: metadata only (model.AuditRow, in its order).
-- No foreign keys: a row outlives what it speaks of, and refusals speak of nobody.
CREATE TABLE audit (
    request_id TEXT NOT NULL PRIMARY KEY,
    received_at_us BIGINT NOT NULL,
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
    stream BOOLEAN NOT NULL,
    status BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error_code TEXT,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    tokens_estimated BOOLEAN NOT NULL,
    first_token_ms DOUBLE PRECISION,
    load_ms DOUBLE PRECISION,
    prompt_ms DOUBLE PRECISION,
    generation_ms DOUBLE PRECISION,
    duration_ms DOUBLE PRECISION NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL
);

CREATE INDEX audit_by_time ON audit (received_at_us);

CREATE INDEX audit_by_tenant_and_time ON audit (tenant_id, received_at_us);

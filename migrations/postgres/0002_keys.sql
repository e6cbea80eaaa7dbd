-- API keys: never the key itself. `mac` is HMAC-SHA256 of the key under GATEWAY_SECRET, `argon2` a PHC string.
-- Times are seconds since the epoch, UTC. UNIQUE (tenant_id, folded) also serves look-ups by tenant.
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    prefix TEXT NOT NULL UNIQUE,
    mac BYTEA NOT NULL CHECK (length(mac) = 32),
    argon2 TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,
    revoked_at DOUBLE PRECISION,
    last_used_at DOUBLE PRECISION,
    UNIQUE (tenant_id, folded)
);

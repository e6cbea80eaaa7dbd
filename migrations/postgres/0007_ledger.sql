-- What each request has cost, by the best evidence so far (accounting.LedgerEntry); a higher rank replaces.
-- Reservation ids sort by time, so that new rows come at the end of the index. No foreign keys: an entry
-- outlives what it speaks of. 9007199254740991 = 2^53 - 1.
CREATE TABLE ledger (
    reservation_id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    admitted_at DOUBLE PRECISION NOT NULL,
    day TEXT NOT NULL,
    month TEXT NOT NULL,
    reserved BIGINT NOT NULL CHECK (reserved BETWEEN 0 AND 9007199254740991),
    tokens BIGINT NOT NULL CHECK (tokens BETWEEN 0 AND 9007199254740991),
    prompt_tokens BIGINT NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens BIGINT NOT NULL CHECK (completion_tokens >= 0),
    estimated BOOLEAN NOT NULL,
    evidence TEXT NOT NULL CHECK (evidence IN ('intent', 'expired', 'recovered', 'settled')),
    rank BIGINT NOT NULL
);

-- Only requests that run are in it, so it costs next to nothing.
CREATE INDEX ledger_of_open_intents ON ledger (tenant_id) WHERE evidence = 'intent';

-- What the ledger adds up to, changed in the same transaction: reading a tenant's sums never reads its past.
-- No CHECK (spent >= 0): it would judge the difference that is added rather than the sum. Rows are updated in
-- place where their page has room for it.
CREATE TABLE sums (
    tenant_id TEXT NOT NULL,
    period TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('key', 'tenant')),
    owner TEXT NOT NULL,
    spent BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, period, scope, owner)
) WITH (fillfactor = 50);

-- Records of the spool that could not be stored, as they were, so that they neither block nor vanish.
CREATE TABLE quarantine (
    digest BYTEA NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    record BYTEA NOT NULL,
    reason TEXT NOT NULL,
    kept_at DOUBLE PRECISION NOT NULL
);

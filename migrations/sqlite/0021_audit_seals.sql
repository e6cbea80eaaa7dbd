-- The hash chain over audit rows (rules.audit_chain): whoever writes rows seals them, in the same transaction. A seal
-- is of the rows of one tenant in one batch: their ids, and a proof of each under a key made of GATEWAY_SECRET; its
-- `mac` is of that and of the mac before it, so that the seals of a day are a chain. Days are of UTC, counted from
-- 1970; in the chain of day -1 there is one seal for each day that was begun, which the day's own chain begins with.
-- Without `salt`, nothing can be learned from a proof about an address that was removed.
CREATE TABLE audit_seals (
    day INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    sealed_at REAL NOT NULL,
    row_count INTEGER NOT NULL,
    ids TEXT NOT NULL,
    proofs BLOB NOT NULL,
    salt BLOB,
    digest BLOB NOT NULL,
    mac BLOB NOT NULL,
    PRIMARY KEY (day, seq)
) STRICT;

CREATE INDEX audit_seals_by_tenant ON audit_seals (tenant_id, day);

-- The end of each day's chain, and that it is the end.
CREATE TABLE audit_heads (
    day INTEGER NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    mac BLOB NOT NULL,
    proof BLOB NOT NULL
) STRICT;

-- What was removed on purpose, so that it can be told from tampering: personal data of a tenant up to a moment (purge),
-- its rows before a day (retention), or all of the days before one (days). tenant_id is "" where it is nobody's.
CREATE TABLE audit_removals (
    kind TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    before_day INTEGER NOT NULL,
    at REAL NOT NULL,
    proof BLOB NOT NULL,
    PRIMARY KEY (kind, tenant_id)
) STRICT;

-- As those of the rows (0020).
CREATE TRIGGER audit_seals_kept_as_they_are BEFORE UPDATE ON audit_seals
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE name = 'audit_open')
BEGIN SELECT RAISE(ABORT, 'seals of audit rows are never changed'); END;

CREATE TRIGGER audit_seals_kept_for_their_time BEFORE DELETE ON audit_seals
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE name = 'audit_open')
BEGIN SELECT RAISE(ABORT, 'seals of audit rows are never deleted before their time'); END;

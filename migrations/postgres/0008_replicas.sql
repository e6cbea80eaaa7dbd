-- Gateways that share counters: each row says when a process was last seen, and up to when all that it had
-- spooled is in the ledger. Times are this database's, seconds since the epoch, UTC.
CREATE TABLE replicas (
    name TEXT NOT NULL PRIMARY KEY,
    seen_at DOUBLE PRECISION NOT NULL,
    drained_at DOUBLE PRECISION NOT NULL
);

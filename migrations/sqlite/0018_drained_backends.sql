-- Backends that get no new requests from any process that shares this database, by their name in
-- OLLAMA_BACKENDS; since when, in seconds since the epoch. Seen by running gateways by the revision.
CREATE TABLE drained_backends (
    name TEXT NOT NULL PRIMARY KEY,
    since REAL NOT NULL
) STRICT;

CREATE TRIGGER drained_backends_inserted AFTER INSERT ON drained_backends
BEGIN UPDATE revision SET value = value + 1; END;

CREATE TRIGGER drained_backends_deleted AFTER DELETE ON drained_backends
BEGIN UPDATE revision SET value = value + 1; END;

-- Backends that get no new requests from any process that shares this database, by their name in
-- OLLAMA_BACKENDS; since when, in seconds since the epoch. Seen by running gateways by the revision.
CREATE TABLE drained_backends (
    name TEXT NOT NULL PRIMARY KEY,
    since DOUBLE PRECISION NOT NULL
);

CREATE TRIGGER drained_backends_changed AFTER INSERT OR DELETE ON drained_backends
FOR EACH ROW EXECUTE FUNCTION raise_revision();

-- Who owns keys. Times are seconds since the epoch, UTC.
-- `folded` is the name as it is compared (rules.names.folded).
CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    created_at DOUBLE PRECISION NOT NULL
);

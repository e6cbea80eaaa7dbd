-- Who owns keys. Times are seconds since the epoch, UTC.
-- `folded` is the name as it is compared (rules.names.folded): SQLite's NOCASE knows ASCII only.
CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;

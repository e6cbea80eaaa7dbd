-- Facts about this database as a whole, such as the fingerprint of the secret that its keys were made with.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

"""The storage on Postgres: what the adapters ask of a database, migrations, and who serves on it."""

#!/bin/bash
# A new database is made with its user and password; only then does Postgres listen for others.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Several arguments, as in the official image.
    # shellcheck disable=SC2086
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" ${POSTGRES_INITDB_ARGS:-}
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o '-c listen_addresses=' -w start
    createdb --username="$POSTGRES_USER" --no-password "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c listen_addresses='*'

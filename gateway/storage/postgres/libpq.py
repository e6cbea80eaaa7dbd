"""Connections to Postgres by psycopg, for what is done once: changes of the schema, and rights.

Apart from all else, as a process that only serves need not load it: 9 MB.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import psycopg

from gateway.postgres_address import PostgresAddress
from gateway.storage.postgres import connecting
from gateway.storage.postgres.connecting import file_of, unusable, wanted_of

# For each host.
_CONNECT_S: Final = 5
# A file that is not there: libpq would otherwise look for one in the home directory.
_NONE: Final = "/dev/null/none"


def connect(address: PostgresAddress, *, autocommit: bool = False) -> "psycopg.Connection[Any]":
    """As `connecting.Connector` does. Raises psycopg.Error."""
    return psycopg.connect(**arguments_of(address), autocommit=autocommit)


@contextlib.contextmanager
def errors_told(address: PostgresAddress) -> Iterator[None]:
    """As `connecting.errors_told`, of psycopg's errors too."""
    try:
        with connecting.errors_told(address):
            yield
    except psycopg.Error as error:
        raise unusable(address, error) from error


def arguments_of(address: PostgresAddress) -> dict[str, Any]:
    """What libpq takes for the address."""
    return {
        "host": ",".join(host for host, _ in address.hosts),
        "port": ",".join(str(port) for _, port in address.hosts),
        "user": address.user,
        "password": address.password,
        "dbname": address.database,
        "target_session_attrs": wanted_of(address),
        "application_name": address.application_name,
        "sslmode": address.sslmode.value,
        "sslrootcert": file_of(address) or _NONE,
        "sslcertmode": "disable",
        "gssencmode": "disable",
        "connect_timeout": _CONNECT_S,
        "prepare_threshold": None,
    }

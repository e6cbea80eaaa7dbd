"""What is in a gateway's database, read and changed behind its back."""

import re
import sqlite3
from contextlib import closing
from typing import Any

from psycopg.rows import dict_row

from gateway.postgres_address import is_postgres
from gateway.storage.postgres.connecting import address_of
from gateway.storage.postgres.libpq import connect
from gateway.storage.sqlite.database import database_path


def ask(database_url: str, statement: str, **values: object) -> list[dict[str, Any]]:
    """Run one statement, with values as :name, and return its rows."""
    if is_postgres(database_url):
        with connect(address_of(database_url), autocommit=True) as connection:
            named = re.sub(r"(?<!:):(\w+)", r"%(\1)s", statement) if values else statement
            cursor = connection.cursor(row_factory=dict_row).execute(named.encode(), values or None)
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(database_path(database_url), isolation_level=None, timeout=10)) as file:
        file.row_factory = sqlite3.Row
        return [dict(row) for row in file.execute(statement, values)]

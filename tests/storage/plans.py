"""How an engine would find rows."""

import re

from gateway.storage.database import Database
from gateway.storage.postgres.database import PostgresDatabase


async def index_of(database: Database, query: str) -> str:
    """The index that a query goes by, or PRIMARY. Postgres is told not to spare small tables."""
    async with database.transaction() as connection:
        if isinstance(database, PostgresDatabase):
            await connection.execute("SET LOCAL enable_seqscan = off")
            await connection.execute("SET LOCAL enable_bitmapscan = off")
            step = str(await connection.fetch_val(f"EXPLAIN {query}"))
        else:
            step = str((await connection.fetch_all(f"EXPLAIN QUERY PLAN {query}"))[0]["detail"])
    found = re.search(r"(?i)using (?:index )?(\w+)", step)
    assert found, step
    return found[1]

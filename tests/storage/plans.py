"""How an engine would find rows."""

import re

from gateway.storage.database import Database
from gateway.storage.postgres.database import PostgresDatabase

_WHOLE = """
    SELECT coalesce(whole.relname, part.relname)::text FROM pg_class part
    LEFT JOIN pg_inherits ON inhrelid = part.oid LEFT JOIN pg_class whole ON whole.oid = inhparent
    WHERE part.relname = :name
"""


async def index_of(database: Database, query: str) -> str:
    """The index that a query goes by, or PRIMARY. Postgres is told not to spare small tables."""
    async with database.transaction() as connection:
        if isinstance(database, PostgresDatabase):
            await connection.execute("SET LOCAL enable_seqscan = off")
            await connection.execute("SET LOCAL enable_bitmapscan = off")
            step = "\n".join(str(row[0]) for row in await connection.fetch_all(f"EXPLAIN {query}"))
            found = re.findall(r"(?i)using (\w+)", step)
            # Of a table in partitions each part has an index of its own, made from the whole table's.
            (whole,) = {str(await connection.fetch_val(_WHOLE, {"name": name})) for name in found}
            return whole
        step = str((await connection.fetch_all(f"EXPLAIN QUERY PLAN {query}"))[0]["detail"])
    match = re.search(r"(?i)using (?:index )?(\w+)", step)
    assert match, step
    return match[1]

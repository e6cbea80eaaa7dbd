"""What a schema is made of, on either engine, in the same words: a table in partitions is one."""

from typing import Any

from gateway.postgres_address import is_postgres
from tests.databases import ask

# What SQLite calls the same.
_SAME = {"BIGINT": "INTEGER", "SMALLINT": "INTEGER", "DOUBLE PRECISION": "REAL", "BYTEA": "BLOB"}

_NAMES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE sql IS NOT NULL",
    "postgres": """
        SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
}
_COLUMNS = {
    "sqlite": """
        SELECT t.name AS table_name, c.name AS column_name, c.type AS kind, c."notnull" AS is_needed
        FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY c.cid
    """,
    "postgres": """
        SELECT table_name, column_name, upper(data_type) AS kind, is_nullable = 'NO' AS is_needed
        FROM information_schema.columns WHERE table_schema = 'public'
            AND table_name NOT IN (SELECT relname FROM pg_class WHERE relispartition)
        ORDER BY ordinal_position
    """,
}
_INDEXES = {
    "sqlite": """
        SELECT t.name AS table_name, i."unique" AS is_unique, i.partial AS is_partial, (
            SELECT group_concat(name) FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)
        ) AS columns
        FROM sqlite_master t, pragma_index_list(t.name) i WHERE t.type = 'table'
    """,
    "postgres": """
        SELECT t.relname AS table_name, i.indisunique AS is_unique, i.indpred IS NOT NULL AS is_partial,
            string_agg(a.attname, ',' ORDER BY k.place) AS columns
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid AND t.relnamespace = 'public'::regnamespace
            AND NOT t.relispartition
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
        GROUP BY t.relname, i.indexrelid, i.indisunique, i.indpred IS NOT NULL
    """,
}


def names_of(database_url: str) -> set[str]:
    """All that migrations can make: tables, indexes, triggers, functions; save yoyo's own."""
    return {row["name"] for row in _asked(database_url, _NAMES) if "yoyo" not in row["name"]}


def columns_of(database_url: str) -> dict[str, dict[str, tuple[str, bool]]]:
    """Of each table, of each column: its type in SQLite's words, save BOOLEAN, and whether it is needed."""
    columns: dict[str, dict[str, tuple[str, bool]]] = {}
    for row in _asked(database_url, _COLUMNS):
        if "yoyo" not in row["table_name"]:
            kind = _SAME.get(row["kind"], row["kind"])
            columns.setdefault(row["table_name"], {})[row["column_name"]] = kind, bool(row["is_needed"])
    return columns


def indexes_of(database_url: str) -> set[tuple[str, str, bool, bool]]:
    """Table and columns of each; whether they are unique, and whether it is of a part of the rows."""
    return {
        (row["table_name"], row["columns"], bool(row["is_unique"]), bool(row["is_partial"]))
        for row in _asked(database_url, _INDEXES)
        if "yoyo" not in row["table_name"]
    }


def _asked(database_url: str, statements: dict[str, str]) -> list[dict[str, Any]]:
    return ask(database_url, statements["postgres" if is_postgres(database_url) else "sqlite"])

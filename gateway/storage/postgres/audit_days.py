"""The audit log's tables, one for each day: made ahead, and dropped when nobody keeps them any more."""

import re
from typing import Final

from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.storage.database import Database

_MAKE: Final = "SELECT make_audit_days()"
# Dropping needs the owner's rights, which the role that serves may not have.
_OWNS: Final = """
    SELECT bool_and(pg_has_role(current_user, relowner, 'USAGE')) FROM pg_class
    WHERE oid IN (CAST('audit' AS regclass), CAST('audit_seals' AS regclass))
"""
# An owner has these rights, or can give them to itself; so can a superuser. Those on one part are enough.
_MAY_CHANGE: Final = """
    SELECT bool_or(
        pg_has_role(current_user, relowner, 'USAGE')
        OR has_table_privilege(pg_class.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
        OR has_column_privilege(pg_class.oid, attnum, 'UPDATE')
    )
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname IN ('status', 'mac')
    WHERE pg_class.oid IN (CAST('audit' AS regclass), CAST('audit_seals' AS regclass))
        OR pg_class.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = CAST('audit' AS regclass))
"""
_TABLES: Final = """
    SELECT CAST(relname AS text) AS name,
        CAST(to_date(substr(relname, 7), 'YYYYMMDD') - DATE '1970-01-01' AS bigint) AS day
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = CAST('audit' AS regclass) AND relname ~ '^audit_[0-9]{8}$' ORDER BY relname
"""
# As the table itself has it, which only its owner can change.
_BEFORE: Final = "SELECT audit_before_until()"
# Whoever waits for a table that is to be dropped keeps others waiting: not for long. It is tried again.
_PATIENCE: Final = "SELECT set_config('lock_timeout', '2s', true)"
_NAME: Final = re.compile(r"audit_\d{8}|audit_before")


class PostgresAuditDays:
    """`storage.engines.AuditDays`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make_ahead(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_MAKE)

    async def may_remove(self) -> bool:
        async with self._database.session() as connection:
            return bool(await connection.fetch_val(_OWNS))

    async def may_change(self) -> bool:
        async with self._database.session() as connection:
            return bool(await connection.fetch_val(_MAY_CHANGE))

    async def drop_before(self, day: int) -> int:
        async with self._database.session() as connection:
            tables = [(row["name"], row["day"]) for row in await connection.fetch_all(_TABLES)]
            until = await connection.fetch_val(_BEFORE)
        names = [name for name, of in tables if of < day]
        if until is not None and until <= day:
            names.append("audit_before")
        for number, name in enumerate(names):
            try:
                await self._drop(name)
            except StoreUnavailable:
                # Somebody reads the log for long: others would wait with us, again and again.
                logger.warning(f"the audit log's table {name} can't be dropped now; its rows go one by one")
                return number
        return len(names)

    async def _drop(self, name: str) -> None:
        assert _NAME.fullmatch(name)  # noqa: S101 - a name can't be a value of a statement
        async with self._database.transaction() as connection:
            await connection.execute(_PATIENCE)
            await connection.execute(f"DROP TABLE IF EXISTS {name}")

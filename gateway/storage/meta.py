"""Facts about the database as a whole."""

from typing import Final

from gateway.storage.database import Database

_PIN: Final = """
    INSERT INTO meta (name, value) VALUES (:name, :value)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
    WHERE NOT EXISTS (SELECT 1 FROM keys) AND NOT EXISTS (SELECT 1 FROM audit_seals)
"""
_VALUE: Final = "SELECT value FROM meta WHERE name = :name"


class Meta:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pin(self, name: str, value: str) -> str:
        """Keep a value that keys and seals of the audit log depend on, and return what is kept.

        It is what was given, unless there are some already: then the value stays that they were made under.
        """
        async with self._database.transaction("keys") as connection:
            await connection.execute(_PIN, {"name": name, "value": value})
            return str(await connection.fetch_val(_VALUE, {"name": name}))

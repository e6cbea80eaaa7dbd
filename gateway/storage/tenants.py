"""Tenants as they are kept."""

import difflib
from typing import Final

from databases.interfaces import Record

from gateway.model import Tenant
from gateway.rules.names import folded
from gateway.storage.database import Database
from gateway.storage.refusals import NoSuchTenant, TenantNameTaken

_BY_NAME: Final = "SELECT id, name, created_at FROM tenants WHERE folded = :folded"
_ALL: Final = "SELECT id, name, created_at FROM tenants ORDER BY folded"
_ADD: Final = "INSERT INTO tenants (id, name, folded, created_at) VALUES (:id, :name, :folded, :created_at)"


class Tenants:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: Tenant) -> None:
        """Keep a new tenant. Raises TenantNameTaken, also when the names differ by case only."""
        async with self._database.transaction() as connection:
            row = await connection.fetch_one(_BY_NAME, {"folded": folded(tenant.name)})
            if row is not None:
                raise TenantNameTaken(_tenant(row))
            await connection.execute(
                _ADD,
                {
                    "id": tenant.id,
                    "name": tenant.name,
                    "folded": folded(tenant.name),
                    "created_at": tenant.created_at,
                },
            )

    async def all(self) -> list[Tenant]:
        """All tenants, by name."""
        async with self._database.session() as connection:
            return [_tenant(row) for row in await connection.fetch_all(_ALL)]

    async def by_name(self, name: str) -> Tenant:
        """The tenant of this name, in whatever case. Raises NoSuchTenant, which knows the nearest name."""
        async with self._database.session() as connection:
            row = await connection.fetch_one(_BY_NAME, {"folded": folded(name)})
        if row is None:
            raise NoSuchTenant(name, near=await self._nearest_to(name))
        return _tenant(row)

    async def _nearest_to(self, name: str) -> str | None:
        names = {folded(tenant.name): tenant.name for tenant in await self.all()}
        near = difflib.get_close_matches(folded(name), names, n=1)
        return names[near[0]] if near else None


def _tenant(row: Record) -> Tenant:
    return Tenant(id=row["id"], name=row["name"], created_at=row["created_at"])

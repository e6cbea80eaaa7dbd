"""Tenants as they are kept."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import asdict, evolve, fields

from gateway.accounting import Policy
from gateway.model import ModelPolicy, Tenant
from gateway.rules.names import folded
from gateway.storage import prompts
from gateway.storage.actions import NOBODY, Actor, differences, note, now_of
from gateway.storage.database import Database, Row, Session
from gateway.storage.model_policies import models_of, values_of
from gateway.storage.refusals import NoSuchTenant, TenantNameTaken

_SELECT: Final = """
    SELECT id, name, created_at, time_zone,
        rpm, tpm, concurrent, daily_tokens, monthly_tokens, total_tokens,
        models, max_num_ctx, max_output_tokens, allow_cloud, suspended_at, weight,
        audit_retention_days
    FROM tenants
"""
_BY_NAME: Final = _SELECT + "WHERE folded = :folded"
_ALL: Final = _SELECT + "ORDER BY folded"
_BY_ID: Final = _SELECT + "WHERE id IN EACH(:ids) ORDER BY folded"
_ADD: Final = """
    INSERT INTO tenants (id, name, folded, created_at, time_zone,
        rpm, tpm, concurrent, daily_tokens, monthly_tokens, total_tokens,
        models, max_num_ctx, max_output_tokens, allow_cloud, weight, audit_retention_days)
    VALUES (:id, :name, :folded, :created_at, :time_zone,
        :rpm, :tpm, :concurrent, :daily_tokens, :monthly_tokens, :total_tokens,
        :models, :max_num_ctx, :max_output_tokens, :allow_cloud, :weight,
        :audit_retention_days)
"""
_CHANGE: Final = """
    UPDATE tenants SET time_zone = :time_zone, rpm = :rpm, tpm = :tpm, concurrent = :concurrent,
        daily_tokens = :daily_tokens, monthly_tokens = :monthly_tokens, total_tokens = :total_tokens,
        models = :models, max_num_ctx = :max_num_ctx, max_output_tokens = :max_output_tokens,
        allow_cloud = :allow_cloud, suspended_at = :suspended_at, weight = :weight,
        audit_retention_days = :audit_retention_days
    WHERE id = :id
"""
_KEYS: Final = "SELECT prefix FROM keys WHERE tenant_id = :id ORDER BY created_at, prefix"
_DELETE_KEYS: Final = "DELETE FROM keys WHERE tenant_id = :id"
_DELETE: Final = "DELETE FROM tenants WHERE id = :id"


class Tenants:
    """All raise StoreUnavailable when the database does not answer. Changes are noted as `actor`'s doing."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

    async def add(self, tenant: Tenant) -> None:
        """Keep a new tenant. Raises TenantNameTaken, also when the names differ by case only."""
        async with self._database.transaction("tenants") as connection:
            row = await connection.fetch_one(_BY_NAME, {"folded": folded(tenant.name)})
            if row is not None:
                raise TenantNameTaken(_tenant(row))
            named = {"name": tenant.name, "folded": folded(tenant.name), "created_at": tenant.created_at}
            await connection.execute(_ADD, {**named, **_changeable(tenant)})
            await note(connection, self._actor, "create_tenant", tenant, differences(None, tenant))

    async def all(self) -> list[Tenant]:
        """All tenants, by name."""
        async with self._database.session() as connection:
            return [_tenant(row) for row in await connection.fetch_all(_ALL)]

    async def by_ids(self, ids: Sequence[str]) -> list[Tenant]:
        """Those tenants that exist, by name."""
        async with self._database.session() as connection:
            return [_tenant(row) for row in await connection.fetch_all(_BY_ID, {"ids": list(ids)})]

    async def by_name(self, name: str) -> Tenant:
        """The tenant of this name, in whatever case. Raises NoSuchTenant, which knows the nearest name."""
        async with self._database.session() as connection:
            found = await _find(connection, name)
        if found is None:
            raise NoSuchTenant(name, near=await self._nearest_to(name))
        return found

    async def set_policy(self, name: str, **changes: int | None) -> Tenant:
        """Change the fields of Policy that are named, and return the tenant.

        What two commands change at once is all changed. Raises NoSuchTenant; TypeError when Policy has no
        such field. Whether a number makes sense is asked before.
        """
        return await self._change(name, lambda found: evolve(found, policy=evolve(found.policy, **changes)))

    async def set_time_zone(self, name: str, time_zone: str) -> Tenant:
        """Let the tenant's days and months begin in this zone, which is not judged. Raises NoSuchTenant."""
        return await self._change(name, lambda found: evolve(found, time_zone=time_zone))

    async def set_weight(self, name: str, weight: int) -> Tenant:
        """Let it have so much of a busy backend, 1 to 1000. Raises NoSuchTenant."""
        return await self._change(name, lambda found: evolve(found, weight=weight))

    async def set_audit_retention(self, name: str, days: int | None) -> Tenant:
        """Keep its audit rows for so many days, or None: as all others. Raises NoSuchTenant."""
        return await self._change(name, lambda found: evolve(found, audit_retention_days=days))

    async def set_models(self, name: str, *, allow_cloud: bool | None = None, **changes: Any) -> Tenant:
        """Change what is named of ModelPolicy, and whether it may use the cloud; else as `set_policy`."""

        def changed(found: Tenant) -> Tenant:
            allowed = found.allow_cloud if allow_cloud is None else allow_cloud
            return evolve(found, models=evolve(found.models, **changes), allow_cloud=allowed)

        return await self._change(name, changed)

    async def suspend(self, name: str) -> Tenant:
        """Refuse all keys of the tenant from now on, by the database's clock.

        Suspending twice changes nothing. Raises NoSuchTenant.
        """
        async with self._database.session() as connection:
            now = await now_of(connection)
        return await self._change(
            name,
            lambda found: found if found.suspended_at is not None else evolve(found, suspended_at=now),
            action="suspend_tenant",
        )

    async def resume(self, name: str) -> Tenant:
        """Let its keys in again. Raises NoSuchTenant."""
        return await self._change(
            name, lambda found: evolve(found, suspended_at=None), action="resume_tenant"
        )

    async def delete(self, name: str) -> tuple[Tenant, list[str]]:
        """Forget a tenant and its keys: who it was, and the prefixes of its keys. Raises NoSuchTenant.

        What it did stays in the ledger, the usage and the audit log, under its id. Its prompts are destroyed,
        as by `Prompts.purge`.
        """
        async with self._database.transaction("tenants", "keys", prompts.LOCK) as connection:
            found = await _find(connection, name)
            if found is not None:
                values = {"id": found.id}
                prefixes = [row["prefix"] for row in await connection.fetch_all(_KEYS, values)]
                destroyed = await prompts.destroy(connection, found)
                await connection.execute(_DELETE_KEYS, values)
                await connection.execute(_DELETE, values)
                gone: dict[str, tuple[Any, Any]] = {"keys": (prefixes, None)}
                if destroyed.prompts:
                    gone["prompts"] = (destroyed.prompts, 0)
                await note(connection, self._actor, "delete_tenant", found, gone)
                return found, prefixes
        raise NoSuchTenant(name, near=await self._nearest_to(name))

    async def _change(
        self, name: str, changed: Callable[[Tenant], Tenant], action: str = "change_tenant"
    ) -> Tenant:
        async with self._database.transaction("tenants") as connection:
            found = await _find(connection, name)
            if found is not None:
                after = changed(found)
                if differing := differences(found, after):
                    await connection.execute(_CHANGE, _changeable(after))
                    await note(connection, self._actor, action, after, differing)
                return after
        raise NoSuchTenant(name, near=await self._nearest_to(name))

    async def _nearest_to(self, name: str) -> str | None:
        names = {folded(tenant.name): tenant.name for tenant in await self.all()}
        near = difflib.get_close_matches(folded(name), names, n=1)
        return names[near[0]] if near else None


async def _find(connection: Session, name: str) -> Tenant | None:
    row = await connection.fetch_one(_BY_NAME, {"folded": folded(name)})
    return None if row is None else _tenant(row)


def _changeable(tenant: Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "time_zone": tenant.time_zone,
        **asdict(tenant.policy),
        **values_of(tenant.models),
        "allow_cloud": int(tenant.allow_cloud),
        "suspended_at": tenant.suspended_at,
        "weight": tenant.weight,
        "audit_retention_days": tenant.audit_retention_days,
    }


def _tenant(row: Row) -> Tenant:
    policy = Policy(**{field.name: row[field.name] for field in fields(Policy)})
    models = models_of([row[field.name] for field in fields(ModelPolicy)])
    return Tenant(
        row["id"],
        row["name"],
        row["created_at"],
        policy,
        row["time_zone"],
        models,
        bool(row["allow_cloud"]),
        suspended_at=row["suspended_at"],
        weight=row["weight"],
        audit_retention_days=row["audit_retention_days"],
    )

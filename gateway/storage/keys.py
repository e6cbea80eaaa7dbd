"""Keys as they are kept: the adapter behind `ports.KeyStore`, and what the command line does with keys."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import asdict, evolve, frozen

from gateway.accounting import Policy
from gateway.model import Key, Tenant
from gateway.rules.names import folded
from gateway.storage.database import Database, Row, Session
from gateway.storage.model_policies import models_of, values_of
from gateway.storage.refusals import KeyNameTaken, NoSuchKey

_SELECT: Final = """
    SELECT keys.id, keys.name, prefix, mac, argon2, keys.created_at, expires_at, revoked_at, last_used_at,
        keys.rpm, keys.tpm, keys.concurrent, keys.daily_tokens, keys.monthly_tokens, keys.total_tokens,
        tenants.id, tenants.name, tenants.created_at, tenants.time_zone,
        tenants.rpm, tenants.tpm, tenants.concurrent,
        tenants.daily_tokens, tenants.monthly_tokens, tenants.total_tokens,
        keys.models, keys.max_num_ctx, keys.max_output_tokens,
        tenants.models, tenants.max_num_ctx, tenants.max_output_tokens, tenants.allow_cloud
    FROM keys JOIN tenants ON tenants.id = keys.tenant_id
"""
_BY_PREFIX: Final = _SELECT + "WHERE prefix = :prefix"
_ALL: Final = (
    _SELECT
    + """
    WHERE tenants.id = :tenant_id OR :tenant_id IS NULL
    ORDER BY tenants.folded, keys.created_at, keys.folded
"""
)
_ADD: Final = """
    INSERT INTO keys (id, tenant_id, name, folded, prefix, mac, argon2, created_at, expires_at,
        rpm, tpm, concurrent, daily_tokens, monthly_tokens, total_tokens,
        models, max_num_ctx, max_output_tokens)
    VALUES (:id, :tenant_id, :name, :folded, :prefix, :mac, :argon2, :created_at, :expires_at,
        :rpm, :tpm, :concurrent, :daily_tokens, :monthly_tokens, :total_tokens,
        :models, :max_num_ctx, :max_output_tokens)
"""
_CHANGE: Final = """
    UPDATE keys SET rpm = :rpm, tpm = :tpm, concurrent = :concurrent, daily_tokens = :daily_tokens,
        monthly_tokens = :monthly_tokens, total_tokens = :total_tokens
    WHERE id = :id
"""
_CHANGE_MODELS: Final = """
    UPDATE keys SET models = :models, max_num_ctx = :max_num_ctx, max_output_tokens = :max_output_tokens
    WHERE id = :id
"""
_HAS_NAME: Final = "SELECT 1 FROM keys WHERE tenant_id = :tenant_id AND folded = :folded"
_REVOKE: Final = "UPDATE keys SET revoked_at = :now WHERE id = :id"
_TOUCH: Final = """
    UPDATE keys SET last_used_at = :used_at WHERE id = :id AND coalesce(last_used_at, 0) < :used_at
"""
_REVISION: Final = "SELECT value FROM revision"


@frozen
class Revocation:
    """A key that is revoked now, and whether it was before (`already`)."""

    key: Key
    already: bool


class Keys:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def key_by_prefix(self, prefix: str) -> Key | None:
        """The key with this public prefix, revoked and expired ones included."""
        async with self._database.session() as connection:
            return await _find(connection, prefix)

    async def revision(self) -> int:
        """A number that grows with every change to tenants and keys, last uses apart."""
        async with self._database.session() as connection:
            return int(await connection.fetch_val(_REVISION))

    async def add(self, key: Key) -> None:
        """Keep a new key. Raises KeyNameTaken, also when the name belonged to a key that is revoked."""
        async with self._database.transaction("keys") as connection:
            values = _values_of(key)
            if await connection.fetch_val(_HAS_NAME, values):
                raise KeyNameTaken(key.name, key.tenant)
            await connection.execute(_ADD, values)

    async def all(self, tenant: Tenant | None = None) -> list[Key]:
        """All keys, or those of one tenant: by tenant, the oldest first."""
        async with self._database.session() as connection:
            rows = await connection.fetch_all(_ALL, {"tenant_id": tenant and tenant.id})
        return [_key(row) for row in rows]

    async def revoke(self, prefix: str, now: float) -> Revocation:
        """Revoke for good, from `now` (seconds since the epoch). Revoking twice changes nothing.

        Raises NoSuchKey.
        """
        async with self._database.transaction("keys") as connection:
            key = await _find(connection, prefix)
            if key is None:
                raise NoSuchKey(prefix)
            if key.revoked_at is not None:
                return Revocation(key, already=True)
            await connection.execute(_REVOKE, {"now": now, "id": key.id})
        return Revocation(evolve(key, revoked_at=now), already=False)

    async def set_policy(self, prefix: str, **changes: int | None) -> Key:
        """Change the fields of Policy that are named, and return the key.

        What two commands change at once is all changed. Raises NoSuchKey; TypeError when Policy has no
        such field. Whether a number makes sense is asked before.
        """
        async with self._database.transaction("keys") as connection:
            found = await _find(connection, prefix)
            if found is None:
                raise NoSuchKey(prefix)
            changed = evolve(found, policy=evolve(found.policy, **changes))
            values = {"id": changed.id, **asdict(changed.policy)}
            await connection.execute(_CHANGE, values)
        return changed

    async def set_models(self, prefix: str, **changes: Any) -> Key:
        """Change the fields of ModelPolicy that are named, and return the key; else as `set_policy`."""
        async with self._database.transaction("keys") as connection:
            found = await _find(connection, prefix)
            if found is None:
                raise NoSuchKey(prefix)
            changed = evolve(found, models=evolve(found.models, **changes))
            await connection.execute(_CHANGE_MODELS, {"id": changed.id, **values_of(changed.models)})
        return changed

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Note when keys were last used: key id → seconds since the epoch. Never lowers what is there."""
        async with self._database.transaction("keys") as connection:
            # In one order, so that two gateways never wait for each other.
            uses = [{"id": key_id, "used_at": used_at} for key_id, used_at in sorted(last_used.items())]
            await connection.execute_many(_TOUCH, uses)


async def _find(connection: Session, prefix: str) -> Key | None:
    row = await connection.fetch_one(_BY_PREFIX, {"prefix": prefix})
    return None if row is None else _key(row)


def _values_of(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant_id": key.tenant.id,
        "name": key.name,
        "folded": folded(key.name),
        "prefix": key.prefix,
        "mac": key.mac,
        "argon2": key.argon2,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        **asdict(key.policy),
        **values_of(key.models),
    }


def _key(row: Row) -> Key:
    key_id, name, prefix, mac, argon2, created_at, expires_at, revoked_at, last_used_at = row[:9]
    tenant_id, tenant, tenant_since, time_zone = row[15:19]
    return Key(
        id=key_id,
        tenant=Tenant(
            tenant_id,
            tenant,
            tenant_since,
            Policy(*row[19:25]),
            time_zone,
            models_of(row[28:31]),
            bool(row[31]),
        ),
        name=name,
        prefix=prefix,
        mac=mac,
        argon2=argon2,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
        policy=Policy(*row[9:15]),
        models=models_of(row[25:28]),
    )

"""Keys as they are kept: the adapter behind `ports.KeyStore`, and what the command line does with keys."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import asdict, evolve, field, frozen

from gateway.accounting import Policy
from gateway.model import Key, KeyStatus, Tenant
from gateway.ports import Pulse
from gateway.rules.addresses import networks_of, written
from gateway.rules.names import MAX_NAME_CHARACTERS, folded
from gateway.storage import prompts
from gateway.storage.actions import NOBODY, Actor, differences, note, now_of
from gateway.storage.database import Database, Row, Session
from gateway.storage.model_policies import models_of, values_of
from gateway.storage.refusals import KeyEnded, KeyNameTaken, KeyRotated, NoSuchKey, NoSuchTenant

_SELECT: Final = """
    SELECT keys.id, keys.name, prefix, mac, argon2, keys.created_at, expires_at, revoked_at, last_used_at,
        keys.rpm, keys.tpm, keys.concurrent, keys.daily_tokens, keys.monthly_tokens, keys.total_tokens,
        tenants.id, tenants.name, tenants.created_at, tenants.time_zone,
        tenants.rpm, tenants.tpm, tenants.concurrent,
        tenants.daily_tokens, tenants.monthly_tokens, tenants.total_tokens,
        keys.models, keys.max_num_ctx, keys.max_output_tokens,
        tenants.models, tenants.max_num_ctx, tenants.max_output_tokens, tenants.allow_cloud,
        keys.account_id, keys.allow_ip, keys.log_prompts_s, keys.prompt_generation,
        tenants.suspended_at, tenants.weight
    FROM keys JOIN tenants ON tenants.id = keys.tenant_id
"""
_BY_PREFIX: Final = _SELECT + "WHERE prefix = :prefix"
_OF_ACCOUNT: Final = _SELECT + "WHERE keys.account_id = :account_id ORDER BY keys.created_at, keys.id"
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
        models, max_num_ctx, max_output_tokens, account_id, allow_ip, log_prompts_s, prompt_generation)
    VALUES (:id, :tenant_id, :name, :folded, :prefix, :mac, :argon2, :created_at, :expires_at,
        :rpm, :tpm, :concurrent, :daily_tokens, :monthly_tokens, :total_tokens,
        :models, :max_num_ctx, :max_output_tokens, :account_id, :allow_ip, :log_prompts_s, :prompt_generation)
"""
# Of all keys of an account: they are counted together.
_CHANGE: Final = """
    UPDATE keys SET rpm = :rpm, tpm = :tpm, concurrent = :concurrent, daily_tokens = :daily_tokens,
        monthly_tokens = :monthly_tokens, total_tokens = :total_tokens
    WHERE account_id = :account_id
"""
_UPDATE: Final = """
    UPDATE keys SET name = :name, folded = :folded, expires_at = :expires_at, revoked_at = :revoked_at,
        allow_ip = :allow_ip
    WHERE id = :id
"""
_CHANGE_MODELS: Final = """
    UPDATE keys SET models = :models, max_num_ctx = :max_num_ctx, max_output_tokens = :max_output_tokens
    WHERE account_id = :account_id
"""
_LOG_PROMPTS: Final = "UPDATE keys SET log_prompts_s = :log_prompts_s WHERE account_id = :account_id"
_HAS_NAME: Final = "SELECT 1 FROM keys WHERE tenant_id = :tenant_id AND folded = :folded AND id <> :id"
_HAS_TENANT: Final = "SELECT 1 FROM tenants WHERE id = :tenant_id"
_TOUCH: Final = """
    UPDATE keys SET last_used_at = :used_at WHERE id = :id AND coalesce(last_used_at, 0) < :used_at
"""
_REVISION: Final = "SELECT value FROM revision"
_PULSE: Final = "SELECT value, NOW_S() FROM revision"


@frozen
class Revocation:
    """A key that is revoked now, and whether it was before (`already`)."""

    key: Key
    already: bool


@frozen
class Proof:
    """What a new key is known by: all that is kept of the key itself."""

    id: str
    prefix: str
    mac: bytes = field(repr=False)
    argon2: str = field(repr=False)


@frozen
class Rotation:
    """A key that ends, and its successor."""

    old: Key
    new: Key


class Keys:
    """All raise StoreUnavailable when the database does not answer. Changes are noted as `actor`'s doing."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

    async def key_by_prefix(self, prefix: str) -> Key | None:
        """The key with this public prefix, revoked and expired ones included."""
        async with self._database.session() as connection:
            return await _find(connection, prefix)

    async def revision(self) -> int:
        """A number that grows with every change to tenants and keys, last uses apart."""
        async with self._database.session() as connection:
            return int(await connection.fetch_val(_REVISION))

    async def pulse(self) -> Pulse:
        """The revision, and what time it is by the database's clock."""
        async with self._database.session() as connection:
            revision, now = await connection.fetch_one(_PULSE) or (0, 0.0)
        return Pulse(int(revision), float(now))

    async def add(self, key: Key) -> None:
        """Keep a new key. Raises KeyNameTaken, also when the name belonged to a key that is revoked.

        Raises NoSuchTenant when its tenant was deleted meanwhile.
        """
        async with self._database.transaction("keys") as connection:
            if not await connection.fetch_val(_HAS_TENANT, {"tenant_id": key.tenant.id}):
                raise NoSuchTenant(key.tenant.name)
            await _refuse_taken_name(connection, key)
            await connection.execute(_ADD, _values_of(key))
            await note(connection, self._actor, "create_key", key, differences(None, key))

    async def all(self, tenant: Tenant | None = None) -> list[Key]:
        """All keys, or those of one tenant: by tenant, the oldest first."""
        async with self._database.session() as connection:
            rows = await connection.fetch_all(_ALL, {"tenant_id": tenant and tenant.id})
        return [_key(row) for row in rows]

    async def of_account(self, account_id: str) -> list[Key]:
        """A key and its successors, or predecessors: the oldest first."""
        async with self._database.session() as connection:
            return await _of_account(connection, account_id)

    async def revoke(self, prefix: str, now: float) -> Revocation:
        """Revoke for good, from `now` (seconds since the epoch). Revoking twice changes nothing.

        Raises NoSuchKey.
        """
        async with self._database.transaction("keys") as connection:
            key = await _get(connection, prefix)
            if key.revoked_at is not None:
                return Revocation(key, already=True)
            after = evolve(key, revoked_at=now)
            await self._keep(connection, "revoke_key", key, after)
        return Revocation(after, already=False)

    async def update(self, prefix: str, **changes: Any) -> tuple[Key, Key]:
        """Change `name`, `expires_at`, `allow_ip` or `log_prompts_s` of a key: what it was, and what it is.

        The last one also of what it was rotated from or to: their prompts are kept together. What is kept
        already can't be read for longer than is said now, by five minutes at most; see `Prompts.shorten`.
        Raises NoSuchKey, KeyNameTaken.
        """
        async with self._database.transaction("keys", prompts.LOCK) as connection:
            before = await _get(connection, prefix)
            after = evolve(before, **changes)
            await _refuse_taken_name(connection, after)
            await self._keep(connection, "update_key", before, after)
            if after.log_prompts_s != before.log_prompts_s:
                values = {"account_id": after.account, "log_prompts_s": after.log_prompts_s}
                await connection.execute(_LOG_PROMPTS, values)
                await prompts.shorten_keys(connection, after)
        return before, after

    async def rotate(
        self, prefix: str, proof: Proof, *, grace_s: float, expires: Callable[[float], float | None] | None
    ) -> Rotation:
        """Make a successor with the name, the account and all policies of a key, which ends after `grace_s`.

        With no grace it is revoked at once. `expires` says when the successor ends, by the database's clock;
        None: when the old one would have. Raises NoSuchKey; KeyEnded, KeyRotated.
        """
        async with self._database.transaction("keys") as connection:
            now = await now_of(connection)
            old = await _get(connection, prefix)
            await _refuse_rotation(connection, old, now)
            new = evolve(
                old,
                id=proof.id,
                prefix=proof.prefix,
                mac=proof.mac,
                argon2=proof.argon2,
                created_at=now,
                last_used_at=None,
                expires_at=old.expires_at if expires is None else expires(now),
                account_id=old.account,
            )
            ends_at = min(now + grace_s, math.inf if old.expires_at is None else old.expires_at)
            retired = evolve(old, name=_retired_name(old), expires_at=ends_at)
            if grace_s == 0:
                retired = evolve(retired, expires_at=old.expires_at, revoked_at=now)
            await self._keep(connection, "rotate_key", old, retired)
            await connection.execute(_ADD, _values_of(new))
            await note(connection, self._actor, "rotate_key", new, {"successor_of": (None, old.prefix)})
        return Rotation(retired, new)

    async def set_policy(self, prefix: str, **changes: int | None) -> Key:
        """Change the fields of Policy that are named, and return the key.

        Also of what it was rotated from or to: they are counted together. What two commands change at once
        is all changed. Raises NoSuchKey; TypeError when Policy has no such field. Whether a number makes
        sense is asked before.
        """
        return await self._change_account(
            prefix,
            lambda found: evolve(found, policy=evolve(found.policy, **changes)),
            _CHANGE,
            lambda changed: asdict(changed.policy),
        )

    async def set_models(self, prefix: str, **changes: Any) -> Key:
        """Change the fields of ModelPolicy that are named, and return the key; else as `set_policy`."""
        return await self._change_account(
            prefix,
            lambda found: evolve(found, models=evolve(found.models, **changes)),
            _CHANGE_MODELS,
            lambda changed: values_of(changed.models),
        )

    async def _change_account(
        self,
        prefix: str,
        change: Callable[[Key], Key],
        statement: str,
        values: Callable[[Key], Mapping[str, Any]],
    ) -> Key:
        """Change what all keys of an account have in common, by what the key is now."""
        async with self._database.transaction("keys") as connection:
            found = await _get(connection, prefix)
            changed = change(found)
            if differing := differences(found, changed):
                await connection.execute(statement, {"account_id": changed.account, **values(changed)})
                await note(connection, self._actor, "change_key", changed, differing)
        return changed

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Note when keys were last used: key id → seconds since the epoch. Never lowers what is there."""
        async with self._database.transaction("keys") as connection:
            # In one order, so that two gateways never wait for each other.
            uses = [{"id": key_id, "used_at": used_at} for key_id, used_at in sorted(last_used.items())]
            await connection.execute_many(_TOUCH, uses)

    async def _keep(self, connection: Session, action: str, before: Key, after: Key) -> None:
        if differing := differences(before, after):
            await connection.execute(_UPDATE, _updatable(after))
            await note(connection, self._actor, action, after, differing)


async def _refuse_rotation(connection: Session, key: Key, now: float) -> None:
    status = key.status(now)
    if status in (KeyStatus.REVOKED, KeyStatus.EXPIRED):
        raise KeyEnded(key.prefix, status.value)
    for other in await _of_account(connection, key.account):
        is_alive = other.status(now) in (KeyStatus.ACTIVE, KeyStatus.SUSPENDED)
        if other.created_at > key.created_at and is_alive:
            raise KeyRotated(key.prefix, other.prefix)


def _retired_name(key: Key) -> str:
    """The name goes on with the successor; the old key is told from it by its prefix."""
    mark = f" ({key.prefix})"
    return key.name[: MAX_NAME_CHARACTERS - len(mark)].rstrip() + mark


async def _refuse_taken_name(connection: Session, key: Key) -> None:
    values = {"tenant_id": key.tenant.id, "folded": folded(key.name), "id": key.id}
    if await connection.fetch_val(_HAS_NAME, values):
        raise KeyNameTaken(key.name, key.tenant)


async def _of_account(connection: Session, account_id: str) -> list[Key]:
    return [_key(row) for row in await connection.fetch_all(_OF_ACCOUNT, {"account_id": account_id})]


async def _get(connection: Session, prefix: str) -> Key:
    """Raises NoSuchKey."""
    found = await _find(connection, prefix)
    if found is None:
        raise NoSuchKey(prefix)
    return found


async def _find(connection: Session, prefix: str) -> Key | None:
    row = await connection.fetch_one(_BY_PREFIX, {"prefix": prefix})
    return None if row is None else _key(row)


def _values_of(key: Key) -> dict[str, Any]:
    return {
        **_updatable(key),
        "tenant_id": key.tenant.id,
        "prefix": key.prefix,
        "mac": key.mac,
        "argon2": key.argon2,
        "created_at": key.created_at,
        "account_id": key.account,
        "log_prompts_s": key.log_prompts_s,
        "prompt_generation": key.prompt_generation,
        **asdict(key.policy),
        **values_of(key.models),
    }


def _updatable(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "folded": folded(key.name),
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "allow_ip": written(key.allow_ip) or None,
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
            suspended_at=row["suspended_at"],
            weight=row["weight"],
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
        account_id="" if row["account_id"] == key_id else row["account_id"],
        allow_ip=networks_of(row["allow_ip"]) if row["allow_ip"] else (),
        log_prompts_s=row["log_prompts_s"],
        prompt_generation=row["prompt_generation"],
    )

"""Prompts as they are kept: sealed, with the keys that seal them, until their time is over.

The law: nothing comes in that its key has not opted in to, now. Each write asks in its transaction whether
the key still logs, for how long, and whether its prompts were purged since the request came; so what waits in
a gateway's memory never comes back. What is destroyed goes with its data key, which has no other copy.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from attrs import asdict, field, frozen

from gateway.model import Key, Tenant
from gateway.storage.actions import NOBODY, Actor, Holder, note
from gateway.storage.database import Database, Row, Session

# Everything that adds, shortens or destroys takes turns.
LOCK: Final = "prompts"
# For so long one data key seals: so much longer than its prompts it lives, at most.
KEY_S: Final = 300.0
_PAGE: Final = 200
# A reader of a running gateway's is gone in milliseconds, an export in minutes.
_SCRUBS: Final = 20
_SCRUB_S: Final = 0.1

_STANDINGS: Final = """
    SELECT DISTINCT account_id, log_prompts_s, prompt_generation FROM keys WHERE account_id IN EACH(:accounts)
"""
_ADD_KEY: Final = """
    INSERT INTO prompt_keys (id, tenant_id, account_id, wrapped, made_at, expires_at)
    VALUES (:id, :tenant_id, :account_id, :wrapped, NOW_S() - :age_s, NOW_S() - :age_s + :lives_s)
    ON CONFLICT (id) DO NOTHING
"""
_ADD: Final = """
    INSERT INTO prompts (request_id, tenant_id, account_id, prompt_key_id, logged_at, expires_at, sealed)
    VALUES (:request_id, :tenant_id, :account_id, :prompt_key_id,
        NOW_S() - :age_s, NOW_S() - :age_s + :lives_s, :sealed)
    ON CONFLICT (request_id) DO NOTHING
"""
_EXPIRED: Final = "SELECT request_id FROM prompts WHERE expires_at <= NOW_S() LIMIT :page"
_EXPIRED_KEYS: Final = "SELECT id FROM prompt_keys WHERE expires_at <= NOW_S() LIMIT :page"
_DELETE: Final = "DELETE FROM prompts WHERE request_id = :request_id"
_DELETE_KEY: Final = "DELETE FROM prompt_keys WHERE id = :id"
_OVERDUE: Final = "SELECT count(*) FROM prompts WHERE expires_at <= NOW_S() - :late_s"
_LOGGING: Final = "SELECT count(*) FROM keys WHERE log_prompts_s IS NOT NULL AND revoked_at IS NULL"
_SHORTEN: Final = """
    UPDATE prompts SET expires_at = logged_at + :lives_s
    WHERE tenant_id = :tenant_id AND account_id = :account_id AND expires_at > logged_at + :lives_s
"""
_SHORTEN_KEYS: Final = """
    UPDATE prompt_keys SET expires_at = made_at + :lives_s
    WHERE tenant_id = :tenant_id AND account_id = :account_id AND expires_at > made_at + :lives_s
"""
_OF: Final = "WHERE tenant_id = :tenant_id AND (account_id = :account_id OR :account_id IS NULL)"
_COUNT: Final = " ".join(("SELECT count(*) FROM prompts", _OF))
_COUNT_KEYS: Final = " ".join(("SELECT count(*) FROM prompt_keys", _OF))
# The rows go with their keys; this is for those whose key was destroyed by hand.
_DESTROY: Final = " ".join(("DELETE FROM prompts", _OF))
_DESTROY_KEYS: Final = " ".join(("DELETE FROM prompt_keys", _OF))
_NEXT_GENERATION: Final = " ".join(("UPDATE keys SET prompt_generation = prompt_generation + 1", _OF))
_FIND: Final = """
    SELECT request_id, prompts.tenant_id, prompts.account_id, prompt_key_id, wrapped, logged_at,
        prompts.expires_at, sealed
    FROM prompts JOIN prompt_keys ON prompt_keys.id = prompt_key_id
    WHERE prompts.expires_at > NOW_S() AND logged_at >= :since
        AND (prompts.tenant_id = :tenant_id OR :tenant_id IS NULL)
        AND (prompts.account_id = :account_id OR :account_id IS NULL)
        AND (request_id = :request_id OR :request_id IS NULL)
    ORDER BY logged_at DESC, request_id DESC LIMIT :limit
"""


@frozen
class KeptKey:
    """A data key. `lives_s` from `age_s` ago."""

    id: str
    tenant_id: str
    account_id: str
    wrapped: bytes = field(repr=False)
    age_s: float
    lives_s: float


@frozen
class SealedPrompt:
    """A request to be kept: for `lives_s` from `age_s` ago."""

    request_id: str
    tenant_id: str
    account_id: str
    generation: int
    prompt_key_id: str
    age_s: float
    lives_s: float
    sealed: bytes = field(repr=False)


@frozen
class FoundPrompt:
    """A request as it is kept. Times are seconds since the epoch, by the database's clock."""

    request_id: str
    tenant_id: str
    account_id: str
    prompt_key_id: str
    wrapped: bytes = field(repr=False)
    logged_at: float
    expires_at: float
    sealed: bytes = field(repr=False)


@frozen
class PromptSelection:
    """Which prompts; what is None is any. `since` is seconds since the epoch."""

    since: float
    limit: int
    tenant_id: str | None = None
    account_id: str | None = None
    request_id: str | None = None


@frozen
class Destroyed:
    """How many prompts, and how many data keys."""

    prompts: int
    data_keys: int


class Prompts:
    """All raise StoreUnavailable when the database does not answer. Changes are noted as `actor`'s doing."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor
        self._is_scrubbed = True

    async def write(self, prompts: Sequence[SealedPrompt], keys: Sequence[KeptKey]) -> int:
        """Keep those that may be kept now: how many. Again changes nothing. Raises Unstorable."""
        accounts = sorted({prompt.account_id for prompt in prompts})
        async with self._database.transaction(LOCK) as connection:
            found = await connection.fetch_all(_STANDINGS, {"accounts": accounts})
            standings = {row["account_id"]: row for row in found}
            values = [
                _values_of(prompt, standings[prompt.account_id])
                for prompt in prompts
                if _may_be_kept(prompt, standings.get(prompt.account_id))
            ]
            used = {value["prompt_key_id"] for value in values}
            await connection.execute_many(_ADD_KEY, [asdict(key) for key in keys if key.id in used])
            await connection.execute_many(_ADD, values)
        return len(values)

    async def expire(self) -> int:
        """Delete all whose time is over: how many. Whoever else does so meanwhile waits."""
        deleted = 0
        for find, delete in ((_EXPIRED, _DELETE), (_EXPIRED_KEYS, _DELETE_KEY)):
            while found := await self._expired(find, delete):
                deleted += found
        if deleted or not self._is_scrubbed:
            self._is_scrubbed = await self._database.scrub()
        return deleted

    async def overdue(self, late_s: float) -> int:
        """How many should have been deleted so long ago."""
        async with self._database.session() as connection:
            return int(await connection.fetch_val(_OVERDUE, {"late_s": late_s}))

    async def logging(self) -> int:
        """How many keys, of those that are not revoked, opted in."""
        async with self._database.session() as connection:
            return int(await connection.fetch_val(_LOGGING))

    async def count(self, holder: Holder) -> Destroyed:
        """What there is of a tenant, or of a key with its successors."""
        async with self._database.session() as connection:
            return await counted(connection, **_ids_of(holder))

    async def purge(self, holder: Holder) -> Destroyed:
        """Destroy all that is kept of a tenant or key, and what waits in gateways' memory: what it was.

        Whether it is kept on is another matter.
        """
        async with self._database.transaction("keys", LOCK) as connection:
            destroyed = await destroy(connection, holder)
            changes = {name: (count, 0) for name, count in asdict(destroyed).items()}
            await note(connection, self._actor, "purge_prompts", holder, changes)
        await scrub(self._database)
        return destroyed

    async def show(
        self, selection: PromptSelection, holder: Holder | None, told: Mapping[str, Any]
    ) -> list[FoundPrompt]:
        """The last so many, the oldest of them first. That they are shown is noted before they are.

        `told` is what the note says of why and which, beside their number.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch_all(_FIND, asdict(selection))
            noted = {name: (None, value) for name, value in told.items() if value is not None}
            noted["shown"] = (None, len(rows))
            noted["request_ids"] = (None, [row["request_id"] for row in rows])
            await note(connection, self._actor, "show_prompts", holder, noted)
        return [_found(row) for row in reversed(rows)]

    async def _expired(self, find: str, delete: str) -> int:
        async with self._database.transaction(LOCK) as connection:
            found = [dict(row) for row in await connection.fetch_all(find, {"page": _PAGE})]
            await connection.execute_many(delete, found)
        return len(found)


async def scrub(database: Database) -> bool:
    """Have what was deleted leave the database's files, where the engine can: whether it has.

    For a command, which nobody waits for. A gateway looks again by and by.
    """
    for _ in range(_SCRUBS):
        if await database.scrub():
            return True
        await asyncio.sleep(_SCRUB_S)
    return False


async def destroy(connection: Session, holder: Holder) -> Destroyed:
    """The same within a transaction that holds LOCK and "keys"."""
    ids = _ids_of(holder)
    destroyed = await counted(connection, **ids)
    for statement in (_DESTROY_KEYS, _DESTROY, _NEXT_GENERATION):
        await connection.execute(statement, dict(ids))
    return destroyed


async def shorten(connection: Session, key: Key) -> None:
    """Let nothing of a key be kept for longer than it says now. Within a transaction that holds LOCK."""
    if key.log_prompts_s is None:
        return
    ids = _ids_of(key)
    await connection.execute(_SHORTEN, {**ids, "lives_s": float(key.log_prompts_s)})
    await connection.execute(_SHORTEN_KEYS, {**ids, "lives_s": key.log_prompts_s + KEY_S})


async def counted(connection: Session, tenant_id: str, account_id: str | None = None) -> Destroyed:
    """What there is of a tenant, or of one account of it."""
    ids = {"tenant_id": tenant_id, "account_id": account_id}
    prompts = await connection.fetch_val(_COUNT, ids)
    return Destroyed(int(prompts), int(await connection.fetch_val(_COUNT_KEYS, ids)))


class _Ids(TypedDict):
    tenant_id: str
    account_id: str | None


def _ids_of(holder: Holder) -> _Ids:
    if isinstance(holder, Tenant):
        return {"tenant_id": holder.id, "account_id": None}
    return {"tenant_id": holder.tenant.id, "account_id": holder.account}


def _may_be_kept(prompt: SealedPrompt, standing: Row | None) -> bool:
    if standing is None or standing["log_prompts_s"] is None:
        return False
    return bool(standing["prompt_generation"] == prompt.generation)


def _values_of(prompt: SealedPrompt, standing: Row) -> dict[str, Any]:
    lives_s = min(prompt.lives_s, float(standing["log_prompts_s"]))
    return {**asdict(prompt), "lives_s": lives_s}


def _found(row: Row) -> FoundPrompt:
    return FoundPrompt(**dict(row))

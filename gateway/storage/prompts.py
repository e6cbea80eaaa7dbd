"""Prompts as they are kept: sealed, with the keys that seal them, until their time is over.

The law: nothing comes in that its key has not opted in to, now. Each write asks in its transaction whether
the key still logs, for how long, and whether its prompts were purged since the request came; so what waits in
a gateway's memory never comes back. What is destroyed goes with its data key, which has no other copy: in one
short transaction, however much it sealed. What nobody can open any more is then deleted by pages, between
which others write; whoever is cut short leaves the rest to `expire`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypedDict

from attrs import asdict, evolve, field, frozen

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
_EXPIRED_KEYS: Final = (
    "SELECT id FROM prompt_keys WHERE expires_at <= NOW_S() ORDER BY expires_at LIMIT :page"
)
# One by one: of many data keys at once, Postgres might read the whole table for a page.
_SEALED_BY: Final = "SELECT request_id FROM prompts WHERE prompt_key_id = :id LIMIT :page"
_DELETE: Final = "DELETE FROM prompts WHERE request_id = :request_id"
_DELETE_KEY: Final = "DELETE FROM prompt_keys WHERE id = :id"
_OVERDUE: Final = "SELECT count(*) FROM prompts WHERE expires_at <= NOW_S() - :late_s"
_LOGGING: Final = "SELECT count(*) FROM keys WHERE log_prompts_s IS NOT NULL AND revoked_at IS NULL"
_STANDING: Final = "SELECT max(log_prompts_s) FROM keys WHERE account_id = :account_id"
_FROM: Final = """
    SELECT request_id, logged_at FROM prompts
    WHERE tenant_id = :tenant_id AND account_id = :account_id AND logged_at >= :after
        AND (logged_at > :after OR request_id > :after_id)
    ORDER BY logged_at, request_id LIMIT :page
"""
_SHORTEN: Final = """
    UPDATE prompts SET expires_at = logged_at + :lives_s
    WHERE request_id = :request_id AND expires_at > logged_at + :lives_s
"""
_SHORTEN_KEYS: Final = """
    UPDATE prompt_keys SET expires_at = made_at + :lives_s
    WHERE tenant_id = :tenant_id AND account_id = :account_id AND expires_at > made_at + :lives_s
"""
_OF: Final = "WHERE tenant_id = :tenant_id AND (account_id = :account_id OR :account_id IS NULL)"
_COUNT: Final = " ".join(("SELECT count(*) FROM prompts", _OF))
_COUNT_KEYS: Final = " ".join(("SELECT count(*) FROM prompt_keys", _OF, "AND expires_at > 0"))
# Not deleted: each would take its rows with it, of which there may be millions.
_DESTROY_KEYS: Final = " ".join(
    ("UPDATE prompt_keys SET wrapped = :nothing, expires_at = 0", _OF, "AND expires_at > 0")
)
_NEXT_GENERATION: Final = " ".join(("UPDATE keys SET prompt_generation = prompt_generation + 1", _OF))
_FIND: Final = """
    SELECT request_id, prompts.tenant_id, prompts.account_id, prompt_key_id, wrapped, logged_at,
        prompts.expires_at, sealed
    FROM prompts JOIN prompt_keys ON prompt_keys.id = prompt_key_id
    WHERE prompts.expires_at > NOW_S() AND prompt_keys.expires_at > NOW_S() AND logged_at >= :since
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
            of_keys = [_key_values_of(key, standings[key.account_id]) for key in keys if key.id in used]
            await connection.execute_many(_ADD_KEY, of_keys)
            await connection.execute_many(_ADD, values)
        return len(values)

    async def expire(self) -> int:
        """Delete all whose time is over: how many. Whoever else does so waits for a page at most."""
        deleted = sum([count async for count in _by_pages(self._expired)])
        deleted += sum([count async for count in self.clear()])
        # Also where nothing was: whoever destroyed something may have been held up by a reader.
        await self._database.scrub()
        return deleted

    def clear(self) -> AsyncIterator[int]:
        """Delete what nobody can open any more: after each page, how many rows and data keys."""
        return _by_pages(self._cleared)

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

        Nobody can open it from then on; `clear` deletes what is left of it. Whether prompts are kept on is
        another matter.
        """
        async with self._database.transaction("keys", LOCK) as connection:
            destroyed = await destroy(connection, holder)
            changes = {name: (count, 0) for name, count in asdict(destroyed).items()}
            await note(connection, self._actor, "purge_prompts", holder, changes)
        await self._database.scrub()
        return destroyed

    def shorten(self, key: Key) -> AsyncIterator[int]:
        """Let no row of a key be kept for longer than it says now: after each page, how many were looked at.

        Its data keys are not, since it says so. Once it says something else, this ends.
        """
        last: dict[str, Any] = {"after": 0.0, "after_id": ""}

        async def page() -> int:
            async with self._database.transaction(LOCK) as connection:
                lives_s = await connection.fetch_val(_STANDING, {"account_id": key.account})
                if lives_s is None or lives_s != key.log_prompts_s:
                    return 0
                rows = await connection.fetch_all(_FROM, {**_ids_of(key), **last, "page": _PAGE})
                values = [{"request_id": row["request_id"], "lives_s": float(lives_s)} for row in rows]
                await connection.execute_many(_SHORTEN, values)
            if rows:
                last.update(after=rows[-1]["logged_at"], after_id=rows[-1]["request_id"])
            return len(rows)

        return _by_pages(page)

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

    async def _expired(self) -> int:
        async with self._database.transaction(LOCK) as connection:
            found = [dict(row) for row in await connection.fetch_all(_EXPIRED, {"page": _PAGE})]
            await connection.execute_many(_DELETE, found)
        return len(found)

    async def _cleared(self) -> int:
        deleted = 0
        async with self._database.transaction(LOCK) as connection:
            for key in await connection.fetch_all(_EXPIRED_KEYS, {"page": _PAGE}):
                of_key = {"id": key["id"], "page": _PAGE - deleted}
                rows = [dict(row) for row in await connection.fetch_all(_SEALED_BY, of_key)]
                await connection.execute_many(_DELETE, rows)
                deleted += len(rows)
                if deleted >= _PAGE:
                    break  # it may have sealed more
                await connection.execute(_DELETE_KEY, {"id": key["id"]})
                deleted += 1
        return deleted


async def _by_pages(page: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
    """Each page's count, until one is 0. Others write for as long as a page has taken: SQLite is unfair."""
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        done = await page()
        took_s = clock() - began
        if not done:
            return
        yield done
        await asyncio.sleep(took_s)


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
    """As `Prompts.purge`, within a transaction that holds LOCK and "keys"."""
    ids = _ids_of(holder)
    destroyed = await counted(connection, **ids)
    await connection.execute(_DESTROY_KEYS, {**ids, "nothing": b""})
    await connection.execute(_NEXT_GENERATION, dict(ids))
    return destroyed


async def shorten_keys(connection: Session, key: Key) -> None:
    """Let no data key be kept for longer than a key says now, nor so anything be read that it sealed.

    Within a transaction that holds LOCK. `Prompts.shorten` does the same with the rows.
    """
    if key.log_prompts_s is not None:
        await connection.execute(_SHORTEN_KEYS, {**_ids_of(key), "lives_s": key.log_prompts_s + KEY_S})


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


def _key_values_of(key: KeptKey, standing: Row) -> dict[str, Any]:
    return asdict(evolve(key, lives_s=min(key.lives_s, standing["log_prompts_s"] + KEY_S)))


def _found(row: Row) -> FoundPrompt:
    return FoundPrompt(**dict(row))

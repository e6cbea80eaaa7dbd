"""What operators did: written with the change itself, in one transaction, and never changed or deleted.

A change without its entry, or an entry without its change, can't be. What is told of a change is what the
house's own values show of it, less the hashes of keys; a field that is added to them is told, too.
"""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import fields, frozen, has

from gateway.model import Key, Tenant
from gateway.storage.database import Database, Row, Session

# What says nothing to anybody, or says it elsewhere in the entry.
_UNTOLD: Final = frozenset(
    {
        "id",
        "tenant",
        "prefix",
        "mac",
        "argon2",
        "created_at",
        "last_used_at",
        "account_id",
        "prompt_generation",
    }
)
_NOW: Final = "SELECT NOW_S()"
_ADD: Final = """
    INSERT INTO admin_actions
        (id, at, os_user, host, action, tenant_id, tenant, key_prefix, key_name, changes)
    VALUES (:id, :at, :os_user, :host, :action, :tenant_id, :tenant, :key_prefix, :key_name, :changes)
"""
_PAGE: Final = """
    SELECT id, at, os_user, host, action, tenant_id, tenant, key_prefix, key_name, changes
    FROM admin_actions
    WHERE at >= :since AND (tenant_id = :tenant_id OR :tenant_id IS NULL)
        AND (key_prefix = :key_prefix OR :key_prefix IS NULL)
    ORDER BY id DESC LIMIT :limit
"""

# Orders what one process does within a tick of the database's clock.
_numbers: Final = itertools.count()

Holder = Tenant | Key
Changes = Mapping[str, tuple[Any, Any]]
"""By field, what was before and what is now, as JSON has it."""


@frozen
class Actor:
    """Who acts: a user of an operating system, on a machine."""

    os_user: str
    host: str


# Where nothing is changed: a serving gateway reads, and notes last uses.
NOBODY: Final = Actor("", "")


@frozen
class Action:
    """One entry. `at` is seconds since the epoch, UTC, by the database's clock."""

    id: str
    at: float
    actor: Actor
    action: str
    """In the words of the command line: create_key, suspend_tenant, …"""
    tenant_id: str | None
    tenant: str | None
    key_prefix: str | None
    key_name: str | None
    changes: dict[str, dict[str, Any]]
    """By field, `before` and `after`."""


class Actions:
    """Reads them, and notes what is no change of the database's own.

    All raise StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

    async def note(self, action: str, holder: Holder | None, changes: Changes) -> None:
        """Write down what is done elsewhere: to Redis, to the schema."""
        async with self._database.transaction() as connection:
            await note(connection, self._actor, action, holder, changes)

    async def latest(
        self, *, since: float, limit: int, tenant_id: str | None = None, key_prefix: str | None = None
    ) -> Sequence[Action]:
        """The last so many since a moment, of one tenant or key where given; the oldest of them first."""
        values = {"since": since, "tenant_id": tenant_id, "key_prefix": key_prefix, "limit": limit}
        async with self._database.session() as connection:
            rows = await connection.fetch_all(_PAGE, values)
        return [_action(row) for row in reversed(rows)]


async def now_of(connection: Session) -> float:
    """Seconds since the epoch by the database's clock."""
    return float(await connection.fetch_val(_NOW))


async def note(
    connection: Session, actor: Actor, action: str, holder: Holder | None, changes: Changes
) -> None:
    """Write down what is done in this transaction."""
    tenant = holder.tenant if isinstance(holder, Key) else holder
    key = holder if isinstance(holder, Key) else None
    at = await now_of(connection)
    entry = {
        "id": f"act_{round(at * 1e3):012x}{next(_numbers):06x}{os.urandom(5).hex()}",
        "at": at,
        "os_user": actor.os_user,
        "host": actor.host,
        "action": action,
        "tenant_id": tenant and tenant.id,
        "tenant": tenant and tenant.name,
        "key_prefix": key and key.prefix,
        "key_name": key and key.name,
        "changes": json.dumps({name: {"before": was, "after": now} for name, (was, now) in changes.items()}),
    }
    await connection.execute(_ADD, entry)


def differences(before: Holder | None, after: Holder) -> Changes:
    """What differs between two states; of what is new, all that it was given."""
    was, now = ({} if before is None else _told(before)), _told(after)
    return {field: (was.get(field), value) for field, value in now.items() if was.get(field) != value}


def _told(value: Any) -> dict[str, Any]:
    """The fields of a value by their names, those of values in it beside its own."""
    told: dict[str, Any] = {}
    for field in fields(type(value)):
        if field.name in _UNTOLD:
            continue
        found = getattr(value, field.name)
        if has(type(found)):
            told |= _told(found)
        else:
            told[field.name] = _plain(field.name, found)
    return told


def _plain(name: str, value: Any) -> Any:
    if name.endswith("_at"):
        return None if value is None else f"{datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, tuple):
        return [str(one) for one in value] or None
    return value


def _action(row: Row) -> Action:
    id_, at, os_user, host, action, tenant_id, tenant, key_prefix, key_name, changes = row
    actor = Actor(os_user, host)
    return Action(id_, at, actor, action, tenant_id, tenant, key_prefix, key_name, json.loads(changes))

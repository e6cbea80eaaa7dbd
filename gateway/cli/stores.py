"""The stores that a command works on, opened for it and closed after it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self, TypeVar

from attrs import frozen

from gateway import config
from gateway.cli.actors import this_actor
from gateway.config import Config
from gateway.errors import LimitsUnavailable
from gateway.redis_address import RedisAddress
from gateway.resources import SystemClock
from gateway.rules.audit_chain import Chain
from gateway.state.secret import confirm_secret, load_secret
from gateway.storage.actions import Actions
from gateway.storage.audit_purging import AuditPurging
from gateway.storage.audit_reading import AuditReading
from gateway.storage.audit_retention import Retention
from gateway.storage.audit_verifying import Head
from gateway.storage.audit_verifying import Verifying as AuditVerifying
from gateway.storage.database import Database
from gateway.storage.drains import Drains
from gateway.storage.engines import audit_days, database_at
from gateway.storage.keys import Keys
from gateway.storage.ledger import Ledger
from gateway.storage.meta import Meta
from gateway.storage.migrations import refuse_pending
from gateway.storage.profiles import Profiles
from gateway.storage.prompts import Prompts
from gateway.storage.refusals import RedisUnusable
from gateway.storage.replicas import Replicas
from gateway.storage.tenants import Tenants
from gateway.storage.usage import Usage

if TYPE_CHECKING:
    from gateway.state.redis_counters import RedisCounters

_T = TypeVar("_T")

# No request waits for a command, but somebody does: more patience than on the hot path, less than at a start.
_REDIS_DEADLINE_S: Final = 1.0
_REDIS_OPENING_S: Final = 2.0


@frozen
class Stores:
    config: Config
    tenants: Tenants
    keys: Keys
    meta: Meta
    ledger: Ledger
    replicas: Replicas
    actions: Actions
    profiles: Profiles
    usage: Usage
    drains: Drains
    audit: AuditReading
    purging: AuditPurging
    prompts: Prompts
    database: Database

    @classmethod
    def on(cls, database: Database, settings: Config) -> Self:
        actor = this_actor()
        return cls(
            settings,
            Tenants(database, actor),
            Keys(database, actor),
            Meta(database),
            Ledger(database),
            Replicas(database),
            Actions(database, actor),
            Profiles(database, actor),
            Usage(database),
            Drains(database, actor),
            AuditReading(database),
            AuditPurging(database, actor),
            Prompts(database, actor),
            database,
        )

    async def secret(self) -> bytes:
        """GATEWAY_SECRET. Raises SecretUnusable where the database was written under another one: keys made
        with it would open nothing, what it notes would look forged, and all would look changed.
        """
        secret = load_secret(self.config)
        await confirm_secret(self.meta, secret)
        return secret

    async def retention(self) -> Retention:
        """Raises SecretUnusable."""
        return Retention(
            self.database,
            audit_days(self.config.admin_database_url, self.database),
            Chain(await self.secret()),
            self.config.audit_retention_days,
            this_actor(),
        )

    async def audit_verifying(
        self, anchors: Iterable[Head], on_rows: Callable[[int], None]
    ) -> AuditVerifying:
        """Raises SecretUnusable."""
        return AuditVerifying(self.database, Chain(await self.secret()), anchors, on_rows)

    async def tenant_id_of(self, name_or_id: str) -> str:
        """The id behind a tenant's name; an id stands for itself, also of a tenant that was deleted.

        Raises NoSuchTenant.
        """
        if re.fullmatch("[0-9a-f]{32}", name_or_id):
            return name_or_id
        return (await self.tenants.by_name(name_or_id)).id


def with_stores(work: Callable[[Stores], Awaitable[_T]]) -> _T:
    """Run `work` on the database of the settings. Raises ConfigError, Refused and what `work` raises.

    The database must be up to date: a command never migrates on its own.
    """
    settings = config.load()
    refuse_pending(settings.admin_database_url)
    return asyncio.run(_opened(settings, work))


async def _opened(settings: Config, work: Callable[[Stores], Awaitable[_T]]) -> _T:
    async with database_at(settings.admin_database_url, connections=1) as database:
        return await work(Stores.on(database, settings))


@asynccontextmanager
async def shared_counters(address: RedisAddress) -> "AsyncIterator[RedisCounters]":
    """What the gateways of a fleet count together. Raises RedisUnusable, also when Redis falls silent."""
    from gateway.state.redis_client import RedisClient  # here, as in resources
    from gateway.state.redis_counters import RedisCounters

    try:
        client = RedisClient(address, deadline_s=_REDIS_DEADLINE_S, opening_s=_REDIS_OPENING_S)
        async with RedisCounters(client, SystemClock()).opened() as counters:
            yield counters
    except LimitsUnavailable as error:
        raise RedisUnusable(f"Redis does not answer at {address}: see REDIS_URL.") from error

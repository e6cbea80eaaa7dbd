"""The stores that a command works on, opened for it and closed after it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import frozen

from gateway import config
from gateway.config import Config
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from gateway.storage.ledger import Ledger
from gateway.storage.meta import Meta
from gateway.storage.migrations import refuse_pending
from gateway.storage.tenants import Tenants

_T = TypeVar("_T")


@frozen
class Stores:
    config: Config
    tenants: Tenants
    keys: Keys
    meta: Meta
    ledger: Ledger


def with_stores(work: Callable[[Stores], Awaitable[_T]]) -> _T:
    """Run `work` on the database of the settings. Raises ConfigError, Refused and what `work` raises.

    The database must be up to date: a command never migrates on its own.
    """
    settings = config.load()
    refuse_pending(settings.database_url)
    return asyncio.run(_opened(settings, work))


async def _opened(settings: Config, work: Callable[[Stores], Awaitable[_T]]) -> _T:
    async with database_at(settings.database_url, connections=1) as database:
        stores = Stores(settings, Tenants(database), Keys(database), Meta(database), Ledger(database))
        return await work(stores)

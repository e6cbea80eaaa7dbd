"""Replicas over one database, one Redis and one model, and customers who ask them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from attrs import define, field, frozen

from gateway import config
from gateway.accounting import Policy
from gateway.cli.keys import make_key
from gateway.cli.stores import Stores
from gateway.cli.tenants import make_tenant
from gateway.storage.engines import database_at
from gateway.storage.migrations import migrate
from tests.databases import ask
from tests.fleet.counted_model import CountedModel
from tests.gateways import SECRET, Gateway

# On a machine that has no time, 0.1 s (the default) would be an outage where a test wants none.
# Redis is reached through a thread of this process, which on a busy machine waits for its turn itself.
REDIS_TIMEOUT_S: Final = 1.0


@frozen
class Customer:
    """A tenant with one key."""

    id: str
    key_id: str
    key: str


@define
class Fleet:
    """`replicas` each have a disk of their own."""

    directory: Path
    model: CountedModel
    settings: dict[str, str]
    """At least where the database and Redis are."""
    replicas: list[Gateway] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.settings = {
            "OLLAMA_BACKENDS": f"counted={self.model.url}",
            "GATEWAY_SECRET": SECRET,
            "GATEWAY_REDIS_TIMEOUT_S": f"{REDIS_TIMEOUT_S}",
            **self.settings,
        }
        migrate(self.database_url)

    @property
    def database_url(self) -> str:
        return self.settings["DATABASE_URL"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.replicas:
            replica.stop()

    def start(self, *names: str) -> Self:
        for name in names:
            self.replicas.append(Gateway(self.directory / name, **self.settings))
        for replica in self.replicas[-len(names) :]:
            replica.start()
        return self

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    def customer(self, name: str, policy: Policy) -> Customer:
        (customer,) = self.customers([name], policy)
        return customer

    def customers(self, names: Sequence[str], policy: Policy, *, time_zone: str = "UTC") -> list[Customer]:
        """New tenants with this policy, as the commands make them, but all in one go."""
        settings = config.parse(self.settings)

        async def make(stores: Stores, name: str) -> Customer:
            tenant = await make_tenant(stores, name, policy, time_zone)
            key, token = await make_key(stores, name, "only")
            return Customer(tenant.id, key.id, token)

        async def make_all() -> list[Customer]:
            async with database_at(settings.database_url, connections=1) as database:
                stores = Stores.on(database, settings)
                return [await make(stores, name) for name in names]

        return asyncio.run(make_all())

    def rows(self, statement: str, **values: object) -> list[dict[str, Any]]:
        """What the database has."""
        return ask(self.database_url, statement, **values)

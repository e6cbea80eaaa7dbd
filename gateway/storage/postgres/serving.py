"""Who serves on a Postgres: an advisory lock, shared by gateways that count together, or of one alone.

It is held by a connection of its own, and so goes with the process. When that breaks, it is taken again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import asyncpg
from attrs import define
from loguru import logger

from gateway.storage.postgres.connecting import DRIVER_ERRORS, Connector, errors_told
from gateway.storage.postgres.database import lock_key
from gateway.storage.refusals import AnotherServes

_KEY: Final = lock_key("serving")
# How often the connection is looked at, and how long an answer is waited for.
_WATCH_S: Final = 2.0
_ANSWER_S: Final = 5.0


@define
class _Claim:
    """What is claimed on the database, and by which connection."""

    connector: Connector
    alone: bool
    connection: asyncpg.Connection | None = None

    async def make(self) -> None:
        """Raises AnotherServes, and what the driver raises."""
        self.connection = await self.connector.connect(_ANSWER_S)
        kind = "" if self.alone else "_shared"
        if self.connector.address.is_pooled:
            # A pooler keeps a session for us within a transaction only, which has to stay open for that.
            await self.connection.execute(
                "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0", timeout=_ANSWER_S
            )
            kind = f"_xact{kind}"
        statement = f"SELECT pg_try_advisory_lock{kind}($1)".replace("_lock_xact", "_xact_lock")
        if not await self.connection.fetchval(statement, _KEY, timeout=_ANSWER_S):
            raise AnotherServes(str(self.connector.address))

    async def confirm(self) -> None:
        """Make sure that it still stands: by asking on its connection, or else by making it again."""
        try:
            assert self.connection is not None  # noqa: S101 - says it to mypy
            await self.connection.fetchval("SELECT 1", timeout=_ANSWER_S)
        except DRIVER_ERRORS:
            self.give_up()
            await self.make()

    def give_up(self) -> None:
        if self.connection is not None:
            self.connection.terminate()


@contextlib.asynccontextmanager
async def serving(database_url: str, *, alone: bool, on_lost: Callable[[], None]) -> AsyncIterator[None]:
    """See `storage.engines.serving`."""
    claim = _Claim(Connector(database_url), alone)
    try:
        with errors_told(claim.connector.address):
            await claim.make()
        watch = asyncio.create_task(_watch(claim, on_lost))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])
    finally:
        claim.give_up()


async def _watch(claim: _Claim, on_lost: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_WATCH_S)
        try:
            await claim.confirm()
        except AnotherServes as error:
            logger.error(str(error))
            on_lost()
            return
        except DRIVER_ERRORS:
            continue  # the database is down, for others too; what this means is told by those who need it

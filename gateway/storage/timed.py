"""A database of which it is told how long each use of it takes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Self

from gateway.storage.database import Database, Session

Observe = Callable[[float], None]


class TimedDatabase:
    """The adapter behind `Database`, around another one.

    A use is all of it: waiting for a connection, the statements, the commit. One that fails counts as well.
    `of_reads` and `of_writes` are given seconds.
    """

    def __init__(self, database: Database, *, of_reads: Observe, of_writes: Observe) -> None:
        self._database = database
        self._of_reads = of_reads
        self._of_writes = of_writes

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *leaving: object) -> None:
        await self._database.__aexit__(*leaving)

    def session(self) -> AbstractAsyncContextManager[Session]:
        return _timed(self._database.session(), self._of_reads)

    def transaction(self, *locks: str) -> AbstractAsyncContextManager[Session]:
        return _timed(self._database.transaction(*locks), self._of_writes)

    async def scrub(self) -> bool:
        return await self._database.scrub()

    def snapshot(self, *, patient: bool = False) -> AbstractAsyncContextManager[Session]:
        return _timed(self._database.snapshot(patient=patient), self._of_reads)


@asynccontextmanager
async def _timed(used: AbstractAsyncContextManager[Session], observe: Observe) -> AsyncIterator[Session]:
    began = perf_counter()
    try:
        async with used as session:
            yield session
    finally:
        observe(perf_counter() - began)

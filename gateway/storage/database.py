"""What this room's adapters ask of a database, whichever it is.

Statements are written once for both engines: in the SQL that both speak, with values by name (`:name`), and
with three words that each engine replaces by its own: `IN EACH(:names)` for a list of texts; `NOW_S()`,
seconds since the epoch by the database's clock, which is one for all who share it; and `VALUES EACH (…)`,
before an ON CONFLICT, for all rows of one INSERT: texts, numbers and flags, no two of them with the same key.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, Self

CONNECTIONS: Final = 4
# How long a caller waits for a connection, or for its turn to write, before it gets a 503.
ACQUIRE_S: Final = 2.0

Values = Mapping[str, Any]
NOTHING: Final[Values] = {}

# By position or by name.
Row = Any


class Session(Protocol):
    """A connection, for one task.

    Each raises StoreUnavailable when the database does not answer, and Unstorable for values that it does
    not take.
    """

    async def fetch_all(self, statement: str, values: Values = NOTHING) -> Sequence[Row]: ...

    async def fetch_one(self, statement: str, values: Values = NOTHING) -> Row | None:
        """The first row."""

    async def fetch_val(self, statement: str, values: Values = NOTHING) -> Any:
        """The first value of the first row; None where there is no row."""

    async def execute(self, statement: str, values: Values = NOTHING) -> None: ...

    async def execute_many(self, statement: str, rows: Iterable[Values]) -> None:
        """The statement once for each, in this order, and in one go; with `VALUES EACH` once for all."""


class Database(Protocol):
    """`async with` opens and closes it. Raises DatabaseUnusable when it can't be opened."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def session(self) -> AbstractAsyncContextManager[Session]:
        """For single statements that read little."""

    def transaction(self, *locks: str) -> AbstractAsyncContextManager[Session]:
        """All or nothing, on the disk when it ends.

        Transactions that name one of the same `locks` come one after the other, so that what is read in them
        still holds when they write. Does not nest.
        """

    async def scrub(self) -> bool:
        """Take what was deleted out of the files, as far as the engine can; False: not now, ask again.

        SQLite overwrites it as it is deleted (`secure_delete`), and this empties the write-ahead log.
        Postgres leaves it to its vacuum, and to whoever keeps its log. Raises StoreUnavailable.
        """

    def snapshot(self, *, patient: bool = False) -> AbstractAsyncContextManager[Session]:
        """For reads of one moment. `patient`: they may take as long as they take."""

"""How long each use of a database takes is told, also of those that fail."""

import pytest

from gateway.errors import Unstorable
from gateway.storage.timed import TimedDatabase


@pytest.fixture
def told() -> dict[str, list[float]]:
    return {"read": [], "write": []}


@pytest.fixture
def timed(database, told) -> TimedDatabase:
    return TimedDatabase(database, of_reads=told["read"].append, of_writes=told["write"].append)


async def test_reads_and_writes_are_told_apart(timed, told):
    async with timed.session() as session:
        await session.fetch_val("SELECT 1")
    async with timed.snapshot() as session:
        await session.fetch_val("SELECT 1")
    async with timed.transaction("one") as session:
        await session.fetch_val("SELECT 1")

    assert (len(told["read"]), len(told["write"])) == (2, 1)
    assert all(seconds > 0 for seconds in (*told["read"], *told["write"]))


async def test_a_use_that_fails_took_its_time_too(timed, told):
    """And fails as before."""
    with pytest.raises(Unstorable):
        async with timed.transaction():
            raise Unstorable

    assert len(told["write"]) == 1

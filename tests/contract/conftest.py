"""One suite, three stores: what holds in this process holds in Redis and in a cluster of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.plans import NOW
from tests.contract.stores import TENANTS, LocalStore, RedisStore, Store, redis_store
from tests.contract.trials import KINDS, Trial
from tests.servers import RedisCluster, RedisServer


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the whole folder, so that its tests share connections."""
    return "asyncio"


@pytest.fixture(scope="package")
async def single(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    async with redis_store(redis_server.url) as store:
        yield store


@pytest.fixture(scope="package")
async def coredis(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """The same server, by the generic client alone."""
    async with redis_store(redis_server.url, is_linked=False) as store:
        yield store


@pytest.fixture(scope="package")
async def cluster(redis_cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    async with redis_store(redis_cluster.url) as store:
        yield store


@pytest.fixture(params=["local", "single", "coredis", "cluster"])
def used_store(request: pytest.FixtureRequest) -> Store:
    return LocalStore() if request.param == "local" else request.getfixturevalue(request.param)


@pytest.fixture
async def cold_store(used_store: Store) -> Store:
    """A store that knows nothing, at the time NOW."""
    await used_store.set_time(NOW)
    await used_store.lose()
    return used_store


@pytest.fixture
async def store(cold_store: Store) -> Store:
    """A store that was told of its tenants, who have spent nothing; at the time NOW."""
    for tenant in TENANTS:
        await cold_store.counters.restore(tenant, [], [], 15.0)
    return cold_store


@pytest.fixture(params=KINDS)
def trial(request: pytest.FixtureRequest) -> Iterator[Trial]:
    """Hypothesis calls from outside of any event loop, so it has one of its own."""
    with asyncio.Runner() as runner:
        if request.param == "local":
            yield Trial(request.param, LocalStore(), runner.run)
            return
        server: RedisServer | RedisCluster = request.getfixturevalue(request.param)
        opened = redis_store(server.url)
        yield Trial(request.param, runner.run(opened.__aenter__()), runner.run)
        runner.run(opened.__aexit__(None, None, None))

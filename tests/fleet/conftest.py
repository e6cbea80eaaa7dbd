"""One fleet for the whole folder: two replicas over Postgres, Redis and two backends, which tests disturb.

Before each test all is well again.
"""

from collections.abc import Iterator

import httpx
import pytest

from tests.doubles import Double
from tests.engines import wait_until
from tests.fault_proxy import FaultProxy, in_thread
from tests.fleet.counted_model import MAD, CountedModel
from tests.fleet.fleet import Fleet
from tests.postgres_server import PostgresServer
from tests.servers import RedisServer

DRAIN_S = 3.0


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """For this folder alone, whose tests stop it, and have dozens of gateways."""
    with PostgresServer({"max_connections": "400"}) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    """Before Redis."""
    with in_thread(FaultProxy(redis.port)) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def model() -> Iterator[CountedModel]:
    with CountedModel() as model:
        yield model


@pytest.fixture(scope="session")
def mad_backend() -> Iterator[Double]:
    with Double.with_model(MAD) as double:
        yield double


@pytest.fixture(scope="session")
def settings(
    model: CountedModel, mad_backend: Double, postgres: PostgresServer, redis: RedisServer, proxy: FaultProxy
) -> dict[str, str]:
    return {
        "DATABASE_URL": postgres.url(postgres.new_database()),
        "REDIS_URL": redis.url_at(proxy.port),
        "OLLAMA_BACKENDS": f"counted={model.url},mad={mad_backend.url}",
        "GATEWAY_FIRST_BYTE_TIMEOUT_S": "2",
        "GATEWAY_CHUNK_GAP_TIMEOUT_S": "2",
        "GATEWAY_DRAIN_S": f"{DRAIN_S}",
    }


@pytest.fixture(scope="session")
def shared_fleet(
    tmp_path_factory: pytest.TempPathFactory, model: CountedModel, settings: dict[str, str]
) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), model, settings) as fleet:
        yield fleet.start("one", "two")


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Fleet:
    assert wait_until(lambda: all(_is_ready(url) for url in shared_fleet.urls), 30)
    return shared_fleet


def _is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200

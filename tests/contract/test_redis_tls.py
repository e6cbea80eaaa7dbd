"""TLS to Redis: the chain and the name are verified, and nothing is said to who is not who was meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.accounting import Taken, Window
from gateway.redis_address import redis_address
from gateway.resources import SystemClock
from gateway.state.redis_client import RedisClient
from gateway.state.redis_counters import RedisCounters
from gateway.storage.refusals import RedisUnusable
from tests.contract.plans import budget, plan
from tests.servers import RedisServer
from tests.tls_front import TlsFront, tls_front


@pytest.fixture
def front(redis_server: RedisServer, certificates: dict[str, Path]) -> Iterator[TlsFront]:
    """Its certificate is for localhost, not for 127.0.0.1."""
    redis_server.ask("FLUSHALL")
    certificate = certificates["server"]
    with tls_front(redis_server.port, certificate, certificate.with_suffix(".key")) as front:
        yield front


def counters_at(url: str, *, is_linked: bool = True) -> RedisCounters:
    client = RedisClient(redis_address(url), deadline_s=5.0, opening_s=2.0, is_linked=is_linked)
    return RedisCounters(client, SystemClock())


@pytest.mark.parametrize("is_linked", [True, False], ids=["link", "coredis"])
async def test_counting_goes_over_tls(
    front: TlsFront, redis_server: RedisServer, certificates: dict[str, Path], is_linked: bool
):
    url = f"rediss://:{redis_server.password}@localhost:{front.port}?ca={certificates['server']}"
    async with counters_at(url, is_linked=is_linked).opened() as counters:
        await counters.restore("acme", [], [], 15.0)
        verdict = await counters.take(plan("r1", budget(None, Window.TOTAL)))

    assert isinstance(verdict, Taken)
    assert set(front.seen) == {True}


@pytest.mark.parametrize(
    ("host", "ca"),
    [("127.0.0.1", "?ca={server}"), ("localhost", "?ca={another}"), ("localhost", "")],
    ids=["another-name", "another-authority", "an-authority-that-nobody-knows"],
)
async def test_who_is_not_who_was_meant_is_told_no_password(
    front: TlsFront, redis_server: RedisServer, certificates: dict[str, Path], host: str, ca: str
):
    url = f"rediss://:{redis_server.password}@{host}:{front.port}{ca.format(**certificates)}"

    with pytest.raises(RedisUnusable):
        async with counters_at(url).opened():
            pass

    assert front.seen == []

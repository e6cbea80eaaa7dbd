"""Outages of a real Redis, each a context: inside it is away, late or in error, and behind it is back."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.engines import wait_until
from tests.fault_proxy import FaultProxy
from tests.servers import RedisServer

Outage = Callable[[RedisServer, FaultProxy], AbstractContextManager[None]]


@contextmanager
def paused(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """It keeps its connections and says nothing, as on a machine that hangs."""
    with redis.stopped():
        yield


@contextmanager
def slow(_redis: RedisServer, proxy: FaultProxy) -> Iterator[None]:
    """By half as much again as anybody waits for."""
    proxy.delay_s = 0.075  # in each direction
    yield
    proxy.delay_s = 0.0


@contextmanager
def read_only(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """A replica whose primary is gone: -READONLY."""
    assert redis.ask("REPLICAOF", "127.0.0.1", 1) == b"+OK"
    yield
    assert redis.ask("REPLICAOF", "NO", "ONE") == b"+OK"


@contextmanager
def full(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """-OOM."""
    assert redis.ask("CONFIG", "SET", "maxmemory", 1) == b"+OK"
    yield
    assert redis.ask("CONFIG", "SET", "maxmemory", 0) == b"+OK"


@contextmanager
def busy(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """Somebody's script never ends: -BUSY."""

    def run_for_ever() -> None:
        with contextlib.suppress(OSError):  # it is not waited for as long as that
            redis.ask("EVAL", "while true do end", 0)

    assert redis.ask("CONFIG", "SET", "busy-reply-threshold", 10) == b"+OK"
    script = threading.Thread(target=run_for_ever)
    script.start()
    assert wait_until(lambda: redis.ask("PING").startswith(b"-BUSY"), 5)
    yield
    assert wait_until(lambda: redis.ask("SCRIPT", "KILL") == b"+OK", 5)
    script.join()

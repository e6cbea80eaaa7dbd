"""Outages of a real Redis, each a context: inside it is away, late or in error, and behind it is back."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from tests.engines import wait_until
from tests.fault_proxy import FaultProxy
from tests.fleet.fleet import REDIS_TIMEOUT_S
from tests.servers import RedisServer

Outage = Callable[[RedisServer, FaultProxy], AbstractContextManager[None]]


@contextmanager
def paused(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """It keeps its connections and says nothing, as on a machine that hangs."""
    with redis.stopped():
        yield


@contextmanager
def slow(_redis: RedisServer, proxy: FaultProxy) -> Iterator[None]:
    """Later than anybody waits for, also where a busy machine is late itself."""
    proxy.delay_s = 0.75 * REDIS_TIMEOUT_S  # in each direction
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


@contextmanager
def killed(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """It comes back empty."""
    redis.kill()
    yield
    redis.start()


@contextmanager
def flushed(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """It is not away for a moment, but empty."""
    assert redis.ask("FLUSHALL") == b"+OK"
    yield


@contextmanager
def set_back(redis: RedisServer, _proxy: FaultProxy) -> Iterator[None]:
    """It comes back as it was a second before it died, after it was -LOADING that for a while."""
    for number in range(20):
        redis.ask("SET", f"pad:{number}", "x" * 1024)
    assert redis.ask("SAVE") == b"+OK"
    time.sleep(1)
    redis.kill()
    yield
    before, redis.settings = redis.settings, _SLOW_LOADING
    redis.start()
    redis.settings = before
    redis.ask("CONFIG", "SET", "key-load-delay", 0)
    (redis.folder / "dump.rdb").unlink()


# Twenty keys and some: a second and a half.
_SLOW_LOADING: Final = ("key-load-delay 50000", "loading-process-events-interval-bytes 1024")

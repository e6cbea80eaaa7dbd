"""Starts gateways that die by SIGKILL at a point of a request's life, or whose clock is ahead.

The gateway has no code for this: a function of it is wrapped, here, before it serves. It dies at its point
once the file `armed` is in its directory, and is ahead by as many seconds as the file `ahead` says. For each
line of JSON on standard input (`directory`, `environment`, `point`) a process is forked, which makes hundreds
of starts affordable; its id is printed. They die with this process.
"""

import ctypes
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

from gateway.backends.thin import ThinAnswer
from gateway.cli.main import main
from gateway.middleware.admission import Admission
from gateway.middleware.audit import Audit
from gateway.middleware.settler import Settler
from gateway.resources import SystemClock
from gateway.server.cycle import RequestCycle
from gateway.server.http1 import Http1Connection
from gateway.spool.backlog import Backlog, Piece
from gateway.spool.records import Audited
from gateway.spool.spool import Spool
from gateway.state.key_cache import VerifiedKeys
from gateway.state.redis_counters import RedisCounters
from gateway.state.redis_scripts import SERVER_CLOCK, Scripts
from gateway.storage.audit import AuditLog

ARMED: Final = Path("armed")
AHEAD: Final = Path("ahead")
Condition = Callable[..., bool]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def always(*_: Any, **__: Any) -> bool:
    return True


def before(owner: type, name: str, when: Condition = always) -> None:
    """Die where this method would be called."""
    call = getattr(owner, name)

    @wraps(call)
    def dying(*given: Any, **named: Any) -> Any:
        if ARMED.exists() and when(*given, **named):
            die()
        return call(*given, **named)

    setattr(owner, name, dying)


def after(owner: type, name: str) -> None:
    """Die where this method has done its work, and nobody knows yet."""
    call = getattr(owner, name)

    @wraps(call)
    def dying(*given: Any, **named: Any) -> Any:
        result = call(*given, **named)
        if ARMED.exists():
            die()
        return result

    @wraps(call)
    async def dying_later(*given: Any, **named: Any) -> Any:
        result = await call(*given, **named)
        if ARMED.exists():
            die()
        return result

    setattr(owner, name, dying_later if inspect.iscoroutinefunction(call) else dying)


def move_clock() -> None:
    """That of Redis is as many µs ahead as its key `ahead_us` says."""

    def now() -> float:
        return time.time() + float(AHEAD.read_text())

    SystemClock.now = staticmethod(now)
    with_clock = Scripts.with_clock
    setattr(Scripts, "with_clock", lambda: with_clock(SERVER_CLOCK + _REDIS_AHEAD))  # noqa: B010 - mypy


_REDIS_AHEAD: Final = """
local real_time_us = server_time_us
local function server_time_us()
  return real_time_us() + tonumber(redis.call('GET', 'ahead_us'))
end
"""


def _is_last(_cycle: RequestCycle, _piece: bytes, more: bool) -> bool:
    return not more


def _has_rows(_backlog: Backlog, piece: Piece) -> bool:
    return any(isinstance(item.record, Audited) for item in piece.batch.items)


POINTS: Final[dict[str, Callable[[], None]]] = {
    "accepted": lambda: after(Http1Connection, "connection_made"),
    "head read": lambda: after(Audit, "_opened"),
    "caller known": lambda: after(VerifiedKeys, "at_once"),
    "planned": lambda: before(Admission, "__call__"),
    "taken": lambda: before(Spool, "intent"),
    "intent written": lambda: after(Spool, "intent"),
    "connecting": lambda: before(ThinAnswer, "__aenter__"),
    "last record read": lambda: before(Settler, "end_within"),
    "settlement spooled": lambda: after(Spool, "settled"),
    "settled in Redis": lambda: after(RedisCounters, "settle"),
    "last byte not sent": lambda: before(RequestCycle, "_send_body", _is_last),
    "row not written": lambda: before(Spool, "record"),
    "row written": lambda: after(Spool, "record"),
    "ledger drained": lambda: before(AuditLog, "write"),
    "drained, not truncated": lambda: before(Backlog, "committed", _has_rows),
    "nowhere": lambda: None,
    "in the future": move_clock,
}


def serve(directory: str, environment: dict[str, str], point: str) -> None:
    """Become a gateway in this directory. Does not return."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # die with the parent
    os.chdir(directory)
    log = os.open("gateway.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = ["serve"]
    POINTS[point]()
    main()


def launch() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the dead are gone at once
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            serve(**order)
        print(child, flush=True)


if __name__ == "__main__":
    launch()

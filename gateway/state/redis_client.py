"""Redis, so that it can be slow, gone or new at any moment and nobody waits for it.

Commands go through coredis; scripts, which each request runs, over a link of their own where there is one.
Each call has a deadline, and no caller's cancellation reaches it: whoever gives up leaves the reply to be
read. A few failures in a row, and the client with all of its connections is thrown away: from then on every
call is refused at once, while each second a new one is built and asked for a sign of life. Clients are not
mended: after failures, coredis 6.9 may have lost places of its pool for good.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

import anyio
from attrs import frozen
from coredis import Redis, RedisCluster
from coredis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from hiredis import HiredisError
from loguru import logger

from gateway.errors import LimitsUnavailable
from gateway.redis_address import Kind, RedisAddress
from gateway.state.deadlines import LATE_S, TURN_S, TURNS
from gateway.state.redis_connected import Client, connected, tls_context
from gateway.state.redis_link import ErrorReply, RedisLink
from gateway.state.redis_scripts import Script
from gateway.storage.refusals import RedisUnusable

# How long coredis itself waits, at least; by then a caller has long been told, but the connection is not lost
# for it. Longer where callers have more patience.
IO_TIMEOUT_S: Final = 1.0
_PATIENCES: Final = 2
PROBE_S: Final = 1.0
OPENING_S: Final = 5.0
# Failures in a row until the client is thrown away. A single slow answer is no outage, and of a cluster one
# part may be down while the others serve.
_FAILURES: Final = {Kind.SINGLE: 3, Kind.SENTINEL: 3, Kind.CLUSTER: 12}
# A deadline is waited for in so many parts: a loop that was blocked is late for one of them, not for all.
_PARTS: Final = 5

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

# A client that is thrown away while it is used raises RuntimeError (its task group is closed) or anyio's own.
_DRIVER_ERRORS: Final = (
    RedisError, ErrorReply, HiredisError, OSError, TimeoutError, RuntimeError, ExceptionGroup,
    anyio.ClosedResourceError, anyio.BrokenResourceError,
)  # fmt: skip

# It logs a traceback for each failed connection; what an operator needs to know is logged here, once.
logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)


class Call(Protocol[_T_co]):
    """A command that was sent. When it `is_over`, it has an `error`, or it has a `value`."""

    @property
    def is_over(self) -> bool: ...

    @property
    def error(self) -> BaseException | None: ...

    @property
    def value(self) -> _T_co: ...

    @property
    def origin(self) -> object:
        """What it was sent by."""

    def ended_within(self, seconds: float) -> Awaitable[None]:
        """Wait for it, no longer."""

    async def ended(self) -> None:
        """Wait for it, however long its connection lasts."""


@frozen(eq=False)
class _Command(Generic[_T]):
    """A call by coredis, in a task of its own."""

    task: "asyncio.Task[_T]"
    origin: Client

    @property
    def is_over(self) -> bool:
        return self.task.done()

    @property
    def error(self) -> BaseException | None:
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    @property
    def value(self) -> _T:
        return self.task.result()

    async def ended_within(self, seconds: float) -> None:
        due_s = asyncio.get_running_loop().time() + seconds
        await _wait_for(self.task, _PARTS, seconds / _PARTS)
        if not self.is_over and asyncio.get_running_loop().time() > due_s + LATE_S:
            await _wait_for(self.task, TURNS, TURN_S)

    async def ended(self) -> None:
        await asyncio.wait([self.task])


class RedisClient:
    """One client, kept alive. Every call raises LimitsUnavailable when Redis does not answer in time."""

    def __init__(
        self,
        address: RedisAddress,
        *,
        deadline_s: float,
        opening_s: float = OPENING_S,
        observe: Callable[[float], None] | None = None,
        is_linked: bool = False,
    ) -> None:
        """`is_linked`: to a single server, scripts go over a link of their own."""
        self.address = address
        self._deadline_s = deadline_s
        self._opening_s = opening_s
        self._io_timeout_s = max(IO_TIMEOUT_S, _PATIENCES * deadline_s)
        # Is given the seconds that each answer was waited for, also those that did not come in time.
        self._observe = observe
        self._is_linked = is_linked
        self._client: Client | None = None
        self._link: RedisLink | None = None
        self._failures = 0
        self._counted: BaseException | None = None
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._last_error: BaseException | None = None
        # A task that nobody holds may be collected before it is done.
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_down(self) -> bool:
        return self._client is None

    async def open(self) -> None:
        """Connect. Raises LimitsUnavailable, or RedisUnusable for one that would drop counters."""
        self._owner = asyncio.create_task(self._own())
        try:
            async with asyncio.timeout(self._opening_s):
                await self._ready.wait()
                await self._refuse_unsuitable()
        except (*_DRIVER_ERRORS, RedisUnusable) as error:
            await self.close()
            raise self._reason(_cause(error)) from error

    def _reason(self, error: BaseException) -> BaseException:
        if isinstance(error, RedisUnusable):
            return error
        if isinstance(self._last_error, AuthenticationError):
            return RedisUnusable("Redis refuses the user name or password of REDIS_URL.")
        return LimitsUnavailable()

    async def close(self) -> None:
        self._client = self._link = None
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()

    async def run(self, command: Callable[[Client], Awaitable[_T]]) -> _T:
        return await self.answer(self.begin(command))

    def begin(self, command: Callable[[Client], Awaitable[_T]]) -> Call[_T]:
        """Send a command, whether or not anybody waits for its answer. Raises LimitsUnavailable when down."""
        client = self._client
        if client is None:
            raise LimitsUnavailable
        task = asyncio.create_task(_run(client, command))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return _Command(task, client)

    def begin_script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Call[Any]:
        """As `begin`. One round trip; a second one where the script is not known yet, or no longer."""
        link = self._link
        if link is None:
            return self.begin(lambda client: _run_script(client, script, keys, arguments))
        try:
            return link.run(script, keys, arguments)
        except OSError as error:
            raise LimitsUnavailable from error

    async def answer(self, call: Call[_T]) -> _T:
        """The answer to a command that began just now; one that is not in time goes on without its caller."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await call.ended_within(self._deadline_s)
        if self._observe is not None:
            self._observe(loop.time() - began_s)
        if not call.is_over:
            self._failed(call, "no answer within the deadline")
            raise LimitsUnavailable
        if (error := call.error) is not None:
            self._raise(call, error)
        self._failures = 0
        return call.value

    def _raise(self, call: Call[Any], error: BaseException) -> NoReturn:
        if isinstance(error, asyncio.CancelledError):
            raise LimitsUnavailable
        if isinstance(error, _DRIVER_ERRORS):
            self._failed(call, _told(error), error)
            raise LimitsUnavailable from error
        raise error

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also when its caller has left

    # ── the client's life ────────────────────────────────────────────────────────────────

    def _failed(self, call: Call[Any], cause: str, error: BaseException | None = None) -> None:
        if call.origin is not self._client and call.origin is not self._link:
            return  # it was sent by one that is thrown away already
        if error is not None and error is self._counted:
            return  # of all that was on one connection when it broke: that is one failure
        self._counted = error
        self._failures += 1
        if self._failures >= _FAILURES[self.address.kind]:
            self._give_up(cause)

    def _give_up(self, cause: str) -> None:
        if self._client is not None:
            logger.warning(f"Redis is down: {cause}")
        self._client = self._link = None
        self._lost.set()

    async def _own(self) -> None:
        """Build clients, one after the other. Each has to be entered and left in this one task."""
        for attempt in count():
            next_probe_s = asyncio.get_running_loop().time() + PROBE_S
            try:
                async with connected(self.address, attempt, self._io_timeout_s) as client:
                    await _show_life(client, self._deadline_s)
                    async with self._linked() as link:
                        self._serve_with(client, link, attempt)
                        await self._until_lost()
            except _DRIVER_ERRORS as error:
                self._last_error = _cause(error)
                self._give_up(_told(self._last_error))
            await asyncio.sleep(next_probe_s - asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def _linked(self) -> AsyncIterator[RedisLink | None]:
        """The link for scripts, connected; None where coredis finds out who has the counters."""
        if not self._is_linked or self.address.kind is not Kind.SINGLE:
            yield None
            return
        link = RedisLink(self.address, tls_context(self.address), timeout_s=self._io_timeout_s)
        try:
            await link.open()
            yield link
        finally:
            link.close()

    def _serve_with(self, client: Client, link: RedisLink | None, attempt: int) -> None:
        if attempt > 0:
            logger.info("Redis answers again")
        self._lost.clear()
        self._failures = 0
        self._client, self._link = client, link
        self._ready.set()

    async def _until_lost(self) -> None:
        """Others' calls tell it; where nobody calls, our own do: an idle gateway is not ready either."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._lost.wait()
            except TimeoutError:
                if self.address.kind is not Kind.CLUSTER:  # of one, any node would answer for the others
                    with contextlib.suppress(LimitsUnavailable):
                        await self._ping()

    async def _ping(self) -> None:
        """Over the link, where there is one: it may be dead long before it is found closed."""
        if self._link is None:
            await self.run(lambda client: client.ping())
            return
        with contextlib.suppress(OSError):  # full: those who filled it tell
            await self.answer(self._link.ping())

    async def _refuse_unsuitable(self) -> None:
        client = self._client
        if isinstance(client, RedisCluster):
            for node in client.primaries:
                async with node:
                    await _refuse_eviction(node)
        elif client is not None:
            await _refuse_eviction(client)


async def _run_script(
    client: Client, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
) -> object:
    try:
        return await client.evalsha(script.sha, keys, arguments)
    except NoScriptError:
        return await client.eval(script.text, keys, arguments)


async def _wait_for(task: "asyncio.Task[Any]", times: int, each_s: float) -> None:
    """So many times at most, each at least a turn of the event loop."""
    for _ in range(times):
        await asyncio.wait([task], timeout=each_s)
        if task.done():
            return


async def _run(client: Client, command: Callable[[Client], Awaitable[_T]]) -> _T:
    return await command(client)


def _cause(error: BaseException) -> BaseException:
    """What leaves the body of a client comes as a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def _show_life(client: Client, deadline_s: float) -> None:
    """Raise unless it answers in time. A cluster was asked for its nodes already."""
    if isinstance(client, RedisCluster):
        return
    await client.ping()  # the first one also connects
    async with asyncio.timeout(deadline_s):
        await client.ping()


async def _refuse_eviction(client: "Redis[Any]") -> None:
    policy = await _eviction_policy(client)
    if policy is None:
        raise RedisUnusable(
            "Redis does not tell its maxmemory-policy, which must be noeviction: "
            "allow this user the command INFO or CONFIG|GET."
        )
    if policy != "noeviction":
        raise RedisUnusable(
            f"Redis has the maxmemory-policy {policy} and would drop counters when its memory is full: "
            "set maxmemory-policy to noeviction."
        )


async def _eviction_policy(client: "Redis[Any]") -> str | None:
    """By INFO or, where that is not allowed, by CONFIG GET; None when neither tells."""
    with contextlib.suppress(ResponseError):
        policy = (await client.info("memory")).get("maxmemory_policy")
        if policy is not None:
            return _text(policy)
    with contextlib.suppress(ResponseError):
        for policy in (await client.config_get(["maxmemory-policy"])).values():
            return _text(policy)
    return None


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

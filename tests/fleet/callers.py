"""Callers of a fleet: what they ask, in four ways, and what each was told."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, Self

import aiohttp
from attrs import define, field

from gateway.accounting import PromptSize
from gateway.rules.plans import MIN_OUTPUT_TOKENS
from gateway.rules.prompts import prompt_bound
from tests.fleet.counted_model import Order

# (surface, is it a stream)
WAYS: Final = (("ollama", True), ("openai", False), ("ollama", False), ("openai", True))
Way = tuple[str, bool]

# Asks for as much as there is; and the least that it has to reserve: of less than that, nothing can be used.
GREEDY: Final = Order(tokens=32_000)
LEAST: Final = prompt_bound(PromptSize(len(GREEDY.prompt), messages=1), context=None) + MIN_OUTPUT_TOKENS

_TIMEOUT: Final = aiohttp.ClientTimeout(total=90)
# Whoever is told to try again does, but not in a tight loop.
_PAUSE_S: Final = 0.05


@define
class Told:
    """What one request was told. Times are on the monotonic clock."""

    replica: str
    way: Way
    sent_at: float
    ended_at: float = 0.0
    request_id: str = ""
    status: int = 0
    """0: there was no answer."""
    retry_after: str | None = None
    error: str | None = None
    """The sentence of an error, whole or in a stream."""
    tokens: int = 0
    """By the answer's own counts."""
    is_complete: bool = False
    """It has its own end: counts, and no error."""

    @property
    def took_s(self) -> float:
        return self.ended_at - self.sent_at


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    key: str,
    order: Order,
    way: Way = WAYS[0],
    *,
    told: Told | None = None,
) -> Told:
    """One request, to its end. Never raises: what broke looks incomplete. `told` grows as it comes in."""
    told = told or Told(url, way, time.monotonic())
    told.sent_at = time.monotonic()
    path, body = _body(order, way)
    try:
        async with session.post(
            url + path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT
        ) as answer:
            told.request_id = answer.headers["x-request-id"]
            told.status = answer.status
            told.retry_after = answer.headers.get("retry-after")
            async for line in answer.content:
                _note(told, line)
                if told.is_complete:
                    break  # as official clients do, who don't wait for the end of the connection
    except (aiohttp.ClientError, OSError, TimeoutError):
        told.is_complete = False
    told.ended_at = time.monotonic()
    return told


def _body(order: Order, way: Way) -> tuple[str, dict[str, Any]]:
    surface, stream = way
    body = {"model": order.model, "messages": [{"role": "user", "content": order.prompt}], "stream": stream}
    if surface == "ollama":
        return "/api/chat", {**body, "options": {"num_predict": order.tokens}}
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    return "/v1/chat/completions", {**body, **usage, "max_tokens": order.tokens}


def _note(told: Told, line: bytes) -> None:
    text = line.removeprefix(b"data:").strip()
    if not text.startswith(b"{"):
        return
    frame = json.loads(text)
    if error := frame.get("error"):
        told.error, told.is_complete = error if isinstance(error, str) else error["message"], False
    elif frame.get("usage"):
        told.tokens, told.is_complete = frame["usage"]["total_tokens"], True
    elif frame.get("done"):
        told.tokens, told.is_complete = frame["prompt_eval_count"] + frame["eval_count"], True


async def spend_all(session: aiohttp.ClientSession, urls: Sequence[str], key: str) -> list[Told]:
    """One greedy request after the other, in turn over replicas, until one is refused."""
    told: list[Told] = []
    while not told or told[-1].status == 200:
        told.append(await ask(session, urls[len(told) % len(urls)], key, GREEDY, ("ollama", False)))
    return told


def spend(urls: Sequence[str], key: str) -> list[Told]:
    """As `spend_all`, for those without an event loop."""

    async def with_session() -> list[Told]:
        async with aiohttp.ClientSession() as session:
            return await spend_all(session, urls, key)

    return asyncio.run(with_session())


@define
class Load:
    """Callers in a thread, each asking one request after the other in turn over replicas and ways."""

    urls: Sequence[str]
    key: str
    order: Order
    callers: int = 12
    once: bool = False
    """Each asks one time only."""
    told: list[Told] = field(factory=list)
    """All that was asked, also what still runs."""
    _stopping: threading.Event = field(factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let what runs end, and begin nothing more."""
        self._stopping.set()
        assert self._thread is not None
        self._thread.join(90)
        assert not self._thread.is_alive()

    def since(self, moment: float) -> list[Told]:
        """What was asked after a moment, and has ended."""
        return [one for one in list(self.told) if one.sent_at >= moment and one.ended_at]

    async def _run(self) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._call(session, number) for number in range(self.callers)))

    async def _call(self, session: aiohttp.ClientSession, caller: int) -> None:
        for number in count(caller):
            if self._stopping.is_set() or (self.once and number > caller):
                return
            told = Told(self.urls[number % len(self.urls)], WAYS[number // 2 % len(WAYS)], time.monotonic())
            self.told.append(told)
            await ask(session, told.replica, self.key, self.order, told.way, told=told)
            if told.status != 200:
                await asyncio.sleep(_PAUSE_S)


async def at_once(
    session: aiohttp.ClientSession,
    urls: Sequence[str],
    key: str,
    orders: Sequence[Order],
    ways: Sequence[Way] = WAYS,
) -> list[Told]:
    """All of them in parallel, in turn over replicas and ways."""
    asked = (
        ask(session, urls[number % len(urls)], key, order, ways[number // len(urls) % len(ways)])
        for number, order in enumerate(orders)
    )
    return list(await asyncio.gather(*asked))

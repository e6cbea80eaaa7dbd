"""A clock that is set, and a store that can be watched, changed and switched off."""

import asyncio
from collections.abc import Callable, Mapping

from attrs import define, field

from gateway.errors import StoreUnavailable
from gateway.model import Key
from gateway.ports import Pulse

NOW = 1_700_000_000.0


@define
class SetClock:
    """Both clocks go on together, when told to."""

    passed: float = 0.0

    def now(self) -> float:
        return NOW + self.passed

    def elapsed(self) -> float:
        return 5000.0 + self.passed

    def pass_by(self, seconds: float) -> None:
        self.passed += seconds


@define
class Store:
    """`reads` are the prefixes that were looked up. While `answering` is unset, reads and polls wait."""

    keys: dict[str, Key] = field(factory=dict)
    number: int = 0
    is_down: bool = False
    reads: list[str] = field(factory=list)
    polls: int = 0
    touched: list[dict[str, float]] = field(factory=list)
    answering: asyncio.Event = field(factory=asyncio.Event)
    now: Callable[[], float] = lambda: NOW
    """Its clock."""
    before_revision: Callable[[], None] = lambda: None
    """Called at each poll: what happens while it is under way."""
    _read: asyncio.Event = field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self.answering.set()

    def put(self, *keys: Key) -> None:
        """Keep or change keys, as a command in another process does."""
        self.keys |= {key.prefix: key for key in keys}
        self.number += 1

    async def key_by_prefix(self, prefix: str) -> Key | None:
        self.reads.append(prefix)
        self._read.set()
        found = self.keys.get(prefix)
        await self.answering.wait()
        await self._fail_if_down()
        return found

    async def has_been_asked_for(self, prefix: str, times: int = 1) -> None:
        """Wait until so many reads of this prefix have begun."""
        while self.reads.count(prefix) < times:
            self._read.clear()
            await self._read.wait()

    async def revision(self) -> int:
        self.polls += 1
        self.before_revision()
        found = self.number
        await self.answering.wait()
        await self._fail_if_down()
        return found

    async def pulse(self) -> Pulse:
        return Pulse(await self.revision(), self.now())

    async def touch(self, last_used: Mapping[str, float]) -> None:
        await self._fail_if_down()
        self.touched.append(dict(last_used))

    async def _fail_if_down(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailable

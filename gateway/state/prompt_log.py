"""The prompt log's way into the database: gathered in memory, sealed in a thread, written in batches.

Never in the spool, whose files outlive a purge: what is in memory when a process is killed, about a second of
it, is not kept, nor what an outage of the database does not let it keep. It is for looking, not for counting.
"""

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import orjson
from attrs import frozen
from loguru import logger

from gateway.config import MIB
from gateway.errors import StoreUnavailable, Unstorable
from gateway.ports import Spoken
from gateway.state.sealing import DataKey, Sealer
from gateway.storage.prompts import KEY_S, KeptKey, SealedPrompt

# Of requests and answers that wait to be written; beyond it the newest are not kept.
MAX_WAITING_BYTES: Final = 64 * MIB
GATHER_S: Final = 0.5
RETRY_S: Final = 1.0
STOP_S: Final = 5.0
# About 100 KB of typical requests, and at most some MB of the largest.
_BATCH: Final = 32
# About 500 bytes each.
_MAX_KEYS: Final = 10_000


class PromptStore(Protocol):
    async def write(self, prompts: Sequence[SealedPrompt], keys: Sequence[KeptKey]) -> int:
        """See `storage.prompts.Prompts.write`."""


@frozen
class _Waiting:
    spoken: Spoken
    since: float


@frozen
class _InUse:
    """A data key, and since when it seals."""

    key: DataKey
    since: float


class PromptLog:
    """The adapter behind `ports.PromptLog`. `start` and `stop` inside the event loop."""

    def __init__(
        self,
        store: PromptStore,
        sealer: Sealer,
        elapsed: Callable[[], float],
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        gather_s: float = GATHER_S,
    ) -> None:
        self.kept = 0
        """How many requests the database has."""
        self.dropped = 0
        """How many it has not: there was no room in memory, or the database did not take them."""
        self._store = store
        self._sealer = sealer
        self._elapsed = elapsed
        self._max_waiting_bytes = max_waiting_bytes
        self._gather_s = gather_s
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._is_dropping = False
        # By account, generation and time to live: after a purge, or another setting, another key.
        self._keys: OrderedDict[tuple[str, int, int], _InUse] = OrderedDict()
        self._news = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def keep(self, spoken: Spoken) -> None:
        """Take it off the request's hands. Never blocks, never raises."""
        if self._waiting_bytes + spoken.size_bytes > self._max_waiting_bytes:
            self._drop(1, "the database is away, or slower than they come")
            return
        self._waiting_bytes += spoken.size_bytes
        self._waiting.append(_Waiting(spoken, self._elapsed()))
        self._news.set()

    async def start(self) -> None:
        self._writing = asyncio.create_task(self._write_for_ever())

    async def stop(self) -> None:
        """Write the rest, if the database takes it soon."""
        if self._writing is None:
            return
        self._writing.cancel()
        await asyncio.wait([self._writing])
        try:
            async with asyncio.timeout(STOP_S):
                await self.flush()
        except (StoreUnavailable, TimeoutError):
            self._drop(len(self._waiting), "the gateway stops, and the database does not answer")

    async def flush(self) -> None:
        """Write what waits now. Raises StoreUnavailable: what is not written yet waits on."""
        self._forget_expired()
        while self._waiting:
            batch = [self._waiting[number] for number in range(min(_BATCH, len(self._waiting)))]
            await self._write(batch)
            self._take_off(len(batch))
        self._is_dropping = False

    async def _write_for_ever(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(self._gather_s)  # what comes meanwhile shares the transaction
            self._news.clear()
            try:
                await self.flush()
            except StoreUnavailable:
                self._news.set()
                await asyncio.sleep(RETRY_S)
            except Exception as error:  # noqa: BLE001 - a defect must not end the log, nor say what was said
                spoilt = min(_BATCH, len(self._waiting))
                self._drop(spoilt, f"a defect ({type(error).__name__})")
                self._take_off(spoilt)
                self._news.set()

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            # Fewer than given: purged, or their key logs no more. Not to keep them is what is wanted.
            self.kept += await self._sealed_and_written(batch)
        except Unstorable:
            for one in batch:  # what the database does not take is alone in not being kept
                try:
                    self.kept += await self._sealed_and_written([one])
                except Unstorable:
                    self._drop(1, "the database does not take it")

    async def _sealed_and_written(self, batch: Sequence[_Waiting]) -> int:
        keys = [self._key_for(one.spoken) for one in batch]
        sealed = await asyncio.to_thread(_seal, batch, [one.key for one in keys])
        now = self._elapsed()
        prompts = [
            SealedPrompt(
                request_id=waiting.spoken.request_id,
                tenant_id=waiting.spoken.tenant_id,
                account_id=waiting.spoken.account_id,
                generation=waiting.spoken.generation,
                prompt_key_id=one.key.id,
                age_s=now - waiting.since,
                lives_s=float(waiting.spoken.lives_s),
                sealed=text,
            )
            for waiting, one, text in zip(batch, keys, sealed, strict=True)
        ]
        kept = [
            _kept_key(one, waiting.spoken, now - one.since) for waiting, one in zip(batch, keys, strict=True)
        ]
        return await self._store.write(prompts, kept)

    def _key_for(self, spoken: Spoken) -> _InUse:
        now, owner = self._elapsed(), (spoken.account_id, spoken.generation, spoken.lives_s)
        found = self._keys.get(owner)
        if found is None or now - found.since >= KEY_S:
            found = self._keys[owner] = _InUse(self._sealer.new_key(spoken.account_id), now)
            self._keys.move_to_end(owner)
            # The first is the oldest: made, and so over, before the others.
            while len(self._keys) > _MAX_KEYS or now - next(iter(self._keys.values())).since >= KEY_S:
                self._keys.popitem(last=False)
        return found

    def _forget_expired(self) -> None:
        """What was to be kept for less time than the database has been away."""
        now = self._elapsed()
        alive = deque(one for one in self._waiting if now - one.since < one.spoken.lives_s)
        if len(alive) < len(self._waiting):
            self._drop(len(self._waiting) - len(alive), "their time was over before the database took them")
            self._waiting = alive
            self._waiting_bytes = sum(one.spoken.size_bytes for one in alive)

    def _take_off(self, count: int) -> None:
        for _ in range(count):
            self._waiting_bytes -= self._waiting.popleft().spoken.size_bytes

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        if count and not self._is_dropping:
            self._is_dropping = True
            logger.error(f"prompts are not kept: {why}")


def _seal(batch: Sequence[_Waiting], keys: Sequence[DataKey]) -> list[bytes]:
    return [
        key.seal(one.spoken.request_id, _written(one.spoken.transcript.written()))
        for one, key in zip(batch, keys, strict=True)
    ]


def _written(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # half a character at the end of what a model said
        return json.dumps(document).encode()


def _kept_key(used: _InUse, spoken: Spoken, age_s: float) -> KeptKey:
    key = used.key
    return KeptKey(key.id, spoken.tenant_id, key.account_id, key.wrapped, age_s, spoken.lives_s + KEY_S)

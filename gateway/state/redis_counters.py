"""Limits and budgets counted in Redis, the same for all replicas: the store of a fleet.

Each call is one script, and so atomic; the scripts are in scripts/. All that is kept of a tenant lies under
one hash tag, in five keys, so that a cluster scales by tenant.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Self

import orjson
from coredis import PureToken

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Cold,
    Expired,
    LedgerEntry,
    Outlook,
    Period,
    Plan,
    RateTake,
    Refused,
    SlotTake,
    Stale,
    Sum,
    Take,
    Taken,
    Verdict,
    slots_of,
    standing_of,
    standings_of,
)
from gateway.errors import StoreUnavailable
from gateway.ports import Clock
from gateway.state.accounts import (
    MAX_TOLD,
    SECOND_US,
    account_of_sum,
    budgets_of,
    expired_of,
    longest_us,
    owners_of,
    to_us,
)
from gateway.state.redis_client import Call, RedisClient
from gateway.state.redis_connected import Client
from gateway.state.redis_scripts import Script, Scripts
from gateway.storage.refusals import RedisUnusable

# All tenants with work in the last hour, with until when: where to look for leases that ran out.
_INDEX: Final = "gateway:tenants"
_INDEXED_S: Final = 60 * 60.0
# Held by the process whose turn it is to look after them.
_TURN: Final = "gateway:turn"
# How many tenants are asked for such leases at the same time.
_ABREAST: Final = 32
# A take that nobody knows the end of is given back after so long, and again until it was found.
_VOID_S: Final = 1.0


class RedisCounters:
    """The adapter behind `ports.Counters` over Redis. Used while `opened`."""

    def __init__(self, client: RedisClient, clock: Clock, scripts: Scripts | None = None) -> None:
        self._client = client
        self._clock = clock
        self._scripts = Scripts.with_clock() if scripts is None else scripts
        # Until when (by the elapsed time) each tenant is in the index.
        self._indexed: dict[str, float] = {}
        # Takes that may have been counted although their caller was told that they were not.
        self._doubtful: dict[str, asyncio.Task[None]] = {}
        # The time, in µs, of the last answer about each tenant: a store that is behind it lost something.
        self._seen: dict[str, int] = {}

    @property
    def is_down(self) -> bool:
        return self._client.is_down

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Connected. Raises RedisUnusable."""
        try:
            await self._client.open()
        except StoreUnavailable as error:
            raise RedisUnusable(f"Redis does not answer at {self._client.address}: see REDIS_URL.") from error
        try:
            yield self
        finally:
            await self.close()
            await self._client.close()

    async def close(self) -> None:
        for void in list(self._doubtful.values()):
            void.cancel()
        await asyncio.gather(*self._doubtful.values(), return_exceptions=True)

    async def take(self, plan: Plan) -> Verdict:
        if self._doubtful and (doubt := self._doubtful.pop(plan.reservation_id, None)):
            doubt.cancel()
        was_indexed = self._is_indexed(plan.tenant_id) or await self._index(plan.tenant_id)
        arguments = (self._as_json(plan, look=False),)
        call = self._client.begin_script(self._scripts.take, _keys(plan.tenant_id), arguments)
        try:
            answer = await self._client.answer(call)
        except (StoreUnavailable, asyncio.CancelledError):
            self._void(plan, call)
            raise
        match answer:
            case [b"taken", now_us, tokens, standings, periods]:
                self._seen[plan.tenant_id] = now_us
                return Taken(plan, tokens, now_us / SECOND_US, standings, _decoded(tuple(periods)))
            case [b"refused", now_us, *refused]:
                self._seen[plan.tenant_id] = now_us
                return _refused(plan, now_us, *refused)
            case [b"cold"]:
                self._indexed.pop(plan.tenant_id, None)
                return Cold(lost=was_indexed)
            case [b"behind"]:
                return await self._forget_behind(plan.tenant_id)
            case [_, epoch]:
                return Stale(epoch)
        raise AssertionError(answer)

    def _as_json(self, plan: Plan, *, look: bool) -> bytes:
        of_request = {
            "id": plan.reservation_id,
            "needed": plan.tokens_needed,
            "wanted": plan.tokens_wanted,
            "spared": plan.spared,
            "lease": to_us(plan.lease_s),
            "epoch": plan.epoch,
            "look": look,
            "seen": self._seen.get(plan.tenant_id, 0),
        }
        return b'%b,"takes":%b}' % (orjson.dumps(of_request)[:-1], _takes_as_json(plan.takes))

    async def _forget_behind(self, tenant_id: str) -> Cold:
        """What is left of an earlier state is worth nothing: the ledger knows better."""
        self._seen.pop(tenant_id, None)
        await self.forget(tenant_id)
        return Cold(lost=True)

    async def settle(self, tenant_id: str, reservation_id: str, tokens: int) -> None:
        await self._run(self._scripts.settle, tenant_id, reservation_id, tokens)

    def settle_at_once(self, tenant_id: str, reservation_id: str, tokens: int) -> bool:  # noqa: ARG002
        return False

    async def renew(self, tenant_id: str, reservation_ids: Sequence[str], lease_s: float) -> None:
        await self._run(self._scripts.renew, tenant_id, to_us(lease_s), *reservation_ids)

    async def expired(self) -> list[Expired]:
        """Of several tenants, what could be had; raises StoreUnavailable only when that is nothing."""
        told: list[Expired] = []
        failures: list[StoreUnavailable] = []
        tenants = await self._indexed_tenants()
        for first in range(0, len(tenants), _ABREAST):
            some = map(self._expired_of, tenants[first : first + _ABREAST])
            for answer in await asyncio.gather(*some, return_exceptions=True):
                if isinstance(answer, StoreUnavailable):
                    failures.append(answer)
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    told += answer
        if failures and not told:
            raise failures[0]
        return told

    async def heard(self, expired: Sequence[Expired]) -> None:
        for tenant_id, some in groupby(expired, attrgetter("tenant_id")):
            await self._run(self._scripts.heard, tenant_id, *(each.reservation_id for each in some))

    async def is_my_turn(self, period_s: float) -> bool:
        """A little less, so that whoever asks regularly has a turn each time."""
        ms = round(period_s * 900)
        return await self._client.run(lambda client: client.set(_TURN, b"1", condition=PureToken.NX, px=ms))

    async def raise_epoch(self, tenant_id: str, epoch: int) -> None:
        await self._run(self._scripts.raise_epoch, tenant_id, epoch)

    async def restore(
        self,
        tenant_id: str,
        sums: Sequence[Sum],
        intents: Sequence[LedgerEntry],
        lease_s: float,
        epoch: int = 0,
    ) -> None:
        self._indexed.pop(tenant_id, None)  # the index may have been lost with the counters
        await self._index(tenant_id)
        told = {
            "lease": to_us(lease_s),
            "sums": [_sum_as_json(told) for told in sums],
            "intents": [_intent_as_json(entry) for entry in intents],
            "epoch": epoch,
        }
        self._seen.pop(tenant_id, None)
        await self._run(self._scripts.restore, tenant_id, orjson.dumps(told))

    async def forget(self, tenant_id: str) -> None:
        keys = _keys(tenant_id)
        await self._client.run(lambda client: client.delete(keys))

    async def look(self, plan: Plan) -> Outlook | Cold | Stale:
        answer = await self._run(self._scripts.take, plan.tenant_id, self._as_json(plan, look=True))
        match answer:
            case [b"looked", now_us, standings, [*refused]]:
                found = standings_of(plan.takes, standings)
                return Outlook(now_us / SECOND_US, found, _refused(plan, *refused))
            case [b"looked", now_us, standings, tokens]:
                return Outlook(now_us / SECOND_US, standings_of(plan.takes, standings), tokens)
            case [b"stale", epoch]:
                return Stale(epoch)
            case [b"behind"]:
                return await self._forget_behind(plan.tenant_id)
            case _:
                return Cold(lost=True)

    # ── calls ────────────────────────────────────────────────────────────────────────────

    def _run(self, script: Script, tenant_id: str, *arguments: str | bytes | int) -> Awaitable[Any]:
        return self._client.answer(self._client.begin_script(script, _keys(tenant_id), arguments))

    # ── the index ────────────────────────────────────────────────────────────────────────

    async def _index(self, tenant_id: str) -> bool:
        """Before there is a lease, see to it that whoever lives longer than this process finds it.

        Whether the store may have known the tenant before: it was in the index, or there was no index.
        """
        if self._is_indexed(tenant_id):
            return True
        until = self._clock.now() + _INDEXED_S
        indexed_until_s = self._clock.elapsed() + _INDEXED_S

        async def add(client: Client) -> bool:
            is_new = await client.zadd(_INDEX, {tenant_id: until})
            return not is_new or await client.zcard(_INDEX) == 1

        was_known = await self._client.run(add)
        self._indexed[tenant_id] = indexed_until_s
        return was_known

    def _is_indexed(self, tenant_id: str) -> bool:
        return self._indexed.get(tenant_id, 0.0) > self._clock.elapsed() + _INDEXED_S / 2

    async def _indexed_tenants(self) -> list[str]:
        now = self._clock.now()

        async def read(client: Client) -> tuple[bytes, ...]:
            await client.zremrangebyscore(_INDEX, 0, now)
            return await client.zrange(_INDEX, 0, -1)

        return [tenant.decode() for tenant in await self._client.run(read)]

    async def _expired_of(self, tenant_id: str) -> list[Expired]:
        answer = await self._run(self._scripts.expired, tenant_id, MAX_TOLD)
        return [_expired(tenant_id, *each) for each in zip(*answer, strict=True)]

    # ── takes that nobody knows the end of ───────────────────────────────────────────────

    def _void(self, plan: Plan, call: Call[Any]) -> None:
        """Give back what was or will be taken for a caller who was told that nothing was."""
        void = asyncio.create_task(self._give_back(plan, call))
        self._doubtful[plan.reservation_id] = void
        void.add_done_callback(lambda _: self._voided(plan.reservation_id, void))

    def _voided(self, reservation_id: str, void: "asyncio.Task[None]") -> None:
        if self._doubtful.get(reservation_id) is void:
            del self._doubtful[reservation_id]

    async def _give_back(self, plan: Plan, call: Call[Any]) -> None:
        """Until it is found, or its lease has run out and charged it: then the ledger corrects that."""
        await call.ended()
        if _took_nothing(call):
            return
        until_s = self._clock.elapsed() + plan.lease_s
        while self._clock.elapsed() < until_s:
            with contextlib.suppress(StoreUnavailable):
                if await self._run(self._scripts.settle, plan.tenant_id, plan.reservation_id, 0):
                    return
            await asyncio.sleep(_VOID_S)


def _took_nothing(call: Call[Any]) -> bool:
    """Whether it answered after all, and that it was not taken."""
    return call.error is None and call.value[0] != b"taken"


# ── to and from the scripts ──────────────────────────────────────────────────────────────


@lru_cache(maxsize=4096)
def _keys(tenant_id: str) -> tuple[str, ...]:
    return tuple(f"{{t:{tenant_id}}}:{name}" for name in ("sums", "open", "leases", "charged", "told"))


# Most requests are charged to the same periods as the one before.
@lru_cache(maxsize=256)
def _decoded(periods: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(period.decode() for period in periods)


# Of all requests of a key the same, until a day is over.
@lru_cache(maxsize=4096)
def _takes_as_json(takes: tuple[Take, ...]) -> bytes:
    return orjson.dumps([_take_as_json(take) for take in takes])


def _take_as_json(take: Take) -> tuple[object, ...]:
    match take:
        case RateTake():
            return "rate", take.account, take.per_minute
        case BucketTake():
            return "bucket", take.account, take.per_minute
        case SlotTake():
            return "slots", take.account, take.limit
        case BudgetTake():
            limit = -1 if take.limit is None else take.limit
            return "budget", take.account, limit, [_period_as_json(period) for period in take.periods]


def _period_as_json(period: Period) -> tuple[str, int]:
    return period.id, period.ends_us or 0


def _sum_as_json(told: Sum) -> tuple[object, ...]:
    return account_of_sum(told), told.period, told.spent, longest_us(told.period) or 0


def _intent_as_json(entry: LedgerEntry) -> dict[str, object]:
    return {
        "id": entry.reservation_id,
        "at": to_us(entry.admitted_at),
        "tokens": entry.reserved,
        "budgets": [(account, period, longest_us(period) or 0) for account, period in budgets_of(entry)],
        "slots": [slots_of(scope, owner) for scope, owner in owners_of(entry)],
    }


def _refused(plan: Plan, now_us: int, index: int, standing: list[int], retry_us: int) -> Refused:
    retry_at = None if retry_us < 0 else retry_us / SECOND_US
    return Refused(standing_of(plan.takes[index], standing), now_us / SECOND_US, retry_at)


def _expired(tenant_id: str, reservation_id: bytes, record: bytes) -> Expired:
    held = orjson.loads(record)
    budgets = (put[1:] for put in held["puts"] if put[0] == "budget")
    return expired_of(tenant_id, reservation_id.decode(), int(held["tokens"]), int(held["at"]), budgets)

"""All that is counted for one tenant in this process, and how it changes.

The twin of the scripts in scripts/: whoever changes one changes the other, and the contract tests say whether
they still agree. What a take would change is computed as new values, and kept only when all of them fit.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from attrs import define, evolve, field

from gateway.accounting import (
    Expired,
    LedgerEntry,
    Outlook,
    Plan,
    Refused,
    Stale,
    Standing,
    Sum,
    Take,
    Taken,
    slots_of,
)
from gateway.state.accounts import (
    CORRECTABLE_US,
    MAX_CORRECTION_US,
    MAX_EXPIRED,
    MAX_TOLD,
    SECOND_US,
    account_of_sum,
    budgets_of,
    expired_of,
    longest_us,
    owners_of,
    to_s,
    to_us,
)
from gateway.state.local_accounts import Account, Budget, Slots, allowed, amount_of, measured
from gateway.state.local_meters import Bucket, Meter

# Idle accounts are looked for among so many, for each take.
_TIDIED: Final = 2


class _InBudget(NamedTuple):
    name: str
    period: str


class _InBucket(NamedTuple):
    name: str
    tokens: int
    limit: int


class _InSlots(NamedTuple):
    name: str


_Put = _InBudget | _InBucket | _InSlots


@define
class _Held:
    """A reservation, with what was put into which accounts."""

    tokens: int
    at_us: int
    puts: list[_Put] = field(factory=list)
    ends_us: int = 0
    """When its lease ends; of a charged one, when it is forgotten."""
    is_charged: bool = False


@define
class _Measured:
    """What a take found."""

    take: Take
    name: str
    account: Account


def _examined(plan: Plan, accounts: Iterable[_Measured], now_us: int) -> int | Refused:
    """How many tokens the plan gets, or what is in its way."""
    needed, granted = plan.tokens_needed, plan.tokens_wanted
    short: list[_Measured] = []
    for each in accounts:
        account = each.account
        free = account.free
        if account.limit == 0 or max(0, free) < amount_of(each.take, needed):
            short.append(each)
        bound = allowed(each.take, free)
        if bound is not None and bound < granted:
            granted = bound
    if short:
        longest = max(short, key=lambda each: _or_never(_retry_us(plan, each)))
        standing, retry_us = longest.account.standing(longest.take), _retry_us(plan, longest)
        return Refused(standing, now_us / SECOND_US, to_s(retry_us))
    return max(0, granted)


def _retry_us(plan: Plan, each: _Measured) -> int | None:
    return each.account.retry_us(amount_of(each.take, plan.tokens_needed))


def _or_never(us: int | None) -> float:
    return math.inf if us is None else us


def _put(name: str, account: Account, amount: int) -> _Put | None:
    """How a settlement finds what was put there; None where it need not."""
    match account:
        case Budget():
            return _InBudget(name, account.period)
        case Bucket():
            return _InBucket(name, amount, account.limit)
        case Slots():
            return _InSlots(name)
        case _:
            return None


def _standings(accounts: Iterable[_Measured]) -> tuple[Standing, ...]:
    return tuple([each.account.standing(each.take) for each in accounts])


@define
class Tenant:
    _last_us: int = 0
    # In the order in which they are looked at for being idle.
    _accounts: OrderedDict[str, Account] = field(factory=OrderedDict)
    _held: dict[str, _Held] = field(factory=dict)
    # A heap of when each lease ends, and whose it is: of one that was renewed, only the last counts.
    _leases: list[tuple[int, str]] = field(factory=list)
    # The oldest first, with when they are forgotten.
    _charged: deque[tuple[int, str]] = field(factory=deque)
    # Whose lease ended, and that nobody has written down or settled yet.
    _told: dict[str, None] = field(factory=dict)

    @property
    def is_busy(self) -> bool:
        return bool(self._held)

    def take(self, plan: Plan, epoch: int, time_us: int) -> Taken | Refused | Stale:
        now_us = self._tick(time_us)
        self._expire(now_us, MAX_EXPIRED)
        accounts = self._measured(plan.takes, now_us)
        held = self._held.get(plan.reservation_id)
        if held is None or held.is_charged:
            if plan.epoch < epoch:
                return Stale(epoch)
            granted = _examined(plan, accounts, now_us)
            if isinstance(granted, Refused):
                self._mend(accounts, now_us)
                return granted
            held = self._hold(plan, granted, accounts, now_us)
            self._tidy(now_us)
        periods = tuple([put.period for put in held.puts if isinstance(put, _InBudget)])
        return Taken(held.tokens, now_us / SECOND_US, _standings(accounts), periods)

    def settle(self, reservation_id: str, used: int, time_us: int) -> None:
        now_us = self._tick(time_us)
        held = self._held.pop(reservation_id, None)
        if held is None:
            return
        self._told.pop(reservation_id, None)
        for put in held.puts:
            match put:
                case _InBudget(name, period):
                    reserved, spent = (0, used - held.tokens) if held.is_charged else (held.tokens, used)
                    self._charge(name, period, reserved, spent)
                case _ if held.is_charged:
                    continue  # its slot is free, and the bucket has filled up since
                case _InSlots(name):
                    self._free_slot(name)
                case _InBucket():
                    self._give_back(put, held.at_us, used, now_us)

    def renew(self, reservation_ids: Iterable[str], lease_us: int, time_us: int) -> None:
        now_us = self._tick(time_us)
        for reservation_id in reservation_ids:
            held = self._held.get(reservation_id)
            if held is not None and not held.is_charged:
                self._lease(reservation_id, held, now_us + lease_us)

    def expired(self, tenant_id: str, time_us: int) -> list[Expired]:
        self._expire(self._tick(time_us), MAX_TOLD)
        return [self._expired(tenant_id, each) for each in islice(self._told, MAX_TOLD)]

    def _expired(self, tenant_id: str, reservation_id: str) -> Expired:
        held = self._held[reservation_id]
        budgets = ((put.name, put.period) for put in held.puts if isinstance(put, _InBudget))
        return expired_of(tenant_id, reservation_id, held.tokens, held.at_us, budgets)

    def heard(self, reservation_ids: Iterable[str]) -> None:
        for reservation_id in reservation_ids:
            self._told.pop(reservation_id, None)

    def restore(
        self, sums: Iterable[Sum], intents: Iterable[LedgerEntry], lease_us: int, time_us: int
    ) -> None:
        now_us = self._tick(time_us)
        for told in sums:
            name = account_of_sum(told)
            budget = self._budget_in(name, told.period, now_us)
            if budget is not None:
                self._accounts[name] = evolve(budget, spent=max(budget.spent, told.spent))
        for entry in intents:
            self._hold_again(entry, now_us + lease_us, now_us)

    def look(self, plan: Plan, epoch: int, time_us: int) -> Outlook | Stale:
        now_us = self._tick(time_us)
        self._expire(now_us, MAX_EXPIRED)
        if plan.epoch < epoch:
            return Stale(epoch)
        accounts = self._measured(plan.takes, now_us)
        answer = _examined(plan, accounts, now_us)
        return Outlook(now_us / SECOND_US, _standings(accounts), answer)

    def _tick(self, time_us: int) -> int:
        """Now; never goes back, unless the clock had run ahead by more than a minute."""
        self._last_us = max(time_us, min(self._last_us, time_us + MAX_CORRECTION_US))
        return self._last_us

    # ── taking ───────────────────────────────────────────────────────────────────────────

    def _measured(self, takes: Iterable[Take], now_us: int) -> list[_Measured]:
        kept = self._accounts
        return [
            _Measured(take, name := take.account, measured(take, kept.get(name), now_us)) for take in takes
        ]

    def _mend(self, accounts: Iterable[_Measured], now_us: int) -> None:
        """A meter from before the clock was set back would not refill until it gets there again."""
        for each in accounts:
            kept = self._accounts.get(each.name)
            if isinstance(kept, Meter) and kept.at_us > now_us:
                self._accounts[each.name] = each.account

    def _hold(self, plan: Plan, tokens: int, accounts: Iterable[_Measured], now_us: int) -> _Held:
        held = _Held(tokens, now_us)
        for each in accounts:
            amount = amount_of(each.take, tokens)
            each.account = self._accounts[each.name] = each.account.plus(amount)
            if put := _put(each.name, each.account, amount):
                held.puts.append(put)
        self._held[plan.reservation_id] = held
        self._told.pop(plan.reservation_id, None)
        self._lease(plan.reservation_id, held, now_us + to_us(plan.lease_s))
        return held

    def _tidy(self, now_us: int) -> None:
        """Drop accounts that are as if they had never been: memory stays as small as what is in use."""
        for _ in range(min(_TIDIED, len(self._accounts))):
            name = next(iter(self._accounts))
            if self._accounts[name].is_idle(now_us):
                del self._accounts[name]
            else:
                self._accounts.move_to_end(name)

    # ── giving back ──────────────────────────────────────────────────────────────────────

    def _charge(self, name: str, period: str, reserved: int, spent: int) -> None:
        budget = self._accounts.get(name)
        if isinstance(budget, Budget) and budget.period == period:
            self._accounts[name] = budget.charged(reserved, spent)

    def _give_back(self, put: _InBucket, taken_us: int, used: int, now_us: int) -> None:
        kept, unused = self._accounts.get(put.name), put.tokens - used
        # Without one it was full again, and dropped: what was used beyond what was taken is owed still.
        bucket = kept if isinstance(kept, Bucket) else Bucket(put.limit)
        bucket = bucket.at(bucket.limit, now_us)
        self._accounts[put.name] = bucket.given_back(unused, taken_us) if unused > 0 else bucket.plus(-unused)

    def _free_slot(self, name: str) -> None:
        slots = self._accounts.get(name)
        if isinstance(slots, Slots) and slots.leases > 1:
            self._accounts[name] = slots.plus(-1)
        else:
            self._accounts.pop(name, None)

    # ── leases ───────────────────────────────────────────────────────────────────────────

    def _lease(self, reservation_id: str, held: _Held, ends_us: int) -> None:
        held.ends_us = ends_us
        heapq.heappush(self._leases, (ends_us, reservation_id))

    def _expire(self, now_us: int, at_most: int) -> None:
        """Charge what ran out, and forget what can no longer be corrected; a bounded number of each."""
        for reservation_id, held in islice(self._ended(now_us), at_most):
            self._end_lease(reservation_id, held, now_us)
        for _ in range(min(at_most, len(self._charged))):
            forgotten_us, reservation_id = self._charged[0]
            if forgotten_us > now_us:
                break
            self._charged.popleft()
            held_still = self._held.get(reservation_id)
            if held_still is not None and held_still.ends_us == forgotten_us:
                del self._held[reservation_id]
                self._told.pop(reservation_id, None)

    def _ended(self, now_us: int) -> Iterator[tuple[str, _Held]]:
        while self._leases and self._leases[0][0] <= now_us:
            ends_us, reservation_id = self._leases[0]
            held = self._held.get(reservation_id)
            if held is not None and not held.is_charged and held.ends_us == ends_us:
                yield reservation_id, held
            heapq.heappop(self._leases)  # renewed, settled or ended

    def _end_lease(self, reservation_id: str, held: _Held, now_us: int) -> None:
        for put in held.puts:
            match put:
                case _InBudget(name, period):
                    self._charge(name, period, held.tokens, held.tokens)
                case _InSlots(name):
                    self._free_slot(name)
        held.is_charged, held.ends_us = True, now_us + CORRECTABLE_US
        self._charged.append((held.ends_us, reservation_id))
        self._told[reservation_id] = None

    # ── what a ledger told ───────────────────────────────────────────────────────────────

    def _budget_in(self, name: str, period: str, now_us: int) -> Budget | None:
        """The budget in this period; None when it is already in a later one."""
        kept = self._accounts.get(name)
        budget = kept if isinstance(kept, Budget) else Budget()
        if budget.period < period:
            longest = longest_us(period)
            return Budget(period, None if longest is None else now_us + longest)
        return budget if budget.period == period else None

    def _hold_again(self, entry: LedgerEntry, ends_us: int, now_us: int) -> None:
        held = self._held[entry.reservation_id] = _Held(entry.reserved, to_us(entry.admitted_at))
        for name, period in budgets_of(entry):
            budget = self._budget_in(name, period, now_us)
            if budget is not None:
                self._accounts[name] = budget.plus(entry.reserved)
            held.puts.append(_InBudget(name, period))
        for scope, owner in owners_of(entry):
            name = slots_of(scope, owner)
            slots = self._accounts.get(name)
            self._accounts[name] = (slots if isinstance(slots, Slots) else Slots()).plus(1)
            held.puts.append(_InSlots(name))
        self._lease(entry.reservation_id, held, ends_us)

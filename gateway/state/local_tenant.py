"""All that is counted for one tenant in this process, and how it changes.

The twin of the scripts in scripts/: whoever changes one changes the other, and the contract tests say whether
they still agree. All accounts of a take are looked at before it is held by any of them.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from attrs import define, field, frozen

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Expired,
    LedgerEntry,
    Outlook,
    Plan,
    Refused,
    SlotTake,
    Stale,
    Sum,
    Take,
    Taken,
    slots_of,
    standing_of,
    standings_of,
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
from gateway.state.local_accounts import KINDS, Account, Budget, Slots
from gateway.state.local_meters import Bucket, Meter

# Idle accounts are looked for among so many, for each take.
_TIDIED: Final = 2


@frozen
class _Places:
    """Where what is taken is counted, in the order of the takes, and in what kind of account.

    And where a settlement finds it: the accounts of budgets and slots, and the buckets.
    """

    all: tuple[tuple[str, Take, type[Account]], ...]
    budgets: tuple[str, ...]
    slots: tuple[str, ...]
    buckets: tuple[BucketTake, ...]


# Of all requests of a key the same, until a day is over.
@lru_cache(maxsize=4096)
def _places_of(takes: tuple[Take, ...]) -> _Places:
    return _Places(
        tuple((take.account, take, KINDS[type(take)]) for take in takes),
        tuple(take.account for take in takes if isinstance(take, BudgetTake)),
        tuple(take.account for take in takes if isinstance(take, SlotTake)),
        tuple(take for take in takes if isinstance(take, BucketTake)),
    )


@define
class _Held:
    """A reservation, and what it was put into."""

    tokens: int
    at_us: int
    places: _Places
    periods: tuple[str, ...]
    """Of each of the budgets."""
    spared: int = 0
    """What the buckets were not taken for."""
    ends_us: int = 0
    """When its lease ends; of a charged one, when it is forgotten."""
    is_charged: bool = False

    @property
    def budgets(self) -> Iterator[tuple[str, str]]:
        """The account and the period of each."""
        return zip(self.places.budgets, self.periods, strict=True)


def _examined(plan: Plan, accounts: Sequence[Account], now_us: int) -> int | Refused:
    """How many tokens the plan gets, or what is in its way."""
    needed, spared, granted = plan.tokens_needed, plan.spared, plan.tokens_wanted
    short: list[int] = []
    for place, account in enumerate(accounts):
        allowed = account.allows(needed, spared)
        if allowed is None:
            short.append(place)
        elif allowed < granted:
            granted = allowed
    if short:
        retries = {place: accounts[place].retry_us(needed, spared, now_us) for place in short}
        longest = max(short, key=lambda place: _or_never(retries[place]))
        standing = standing_of(plan.takes[longest], accounts[longest].row())
        return Refused(standing, now_us / SECOND_US, to_s(retries[longest]))
    return max(0, granted)


def _or_never(us: int | None) -> float:
    return math.inf if us is None else us


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
        places = _places_of(plan.takes)
        accounts = self._measured(places, now_us)
        held = self._held.get(plan.reservation_id)
        if held is not None and not held.is_charged:
            rows = [account.row() for account in accounts]
            return Taken(plan, held.tokens, now_us / SECOND_US, rows, held.periods)
        if plan.epoch < epoch:
            return Stale(epoch)
        granted = _examined(plan, accounts, now_us)
        if isinstance(granted, Refused):
            self._mend(places, accounts, now_us)
            return granted
        taken = self._hold(plan, granted, places, accounts, now_us)
        self._tidy(now_us)
        return taken

    def settle(self, reservation_id: str, used: int, time_us: int) -> None:
        now_us = self._tick(time_us)
        held = self._held.pop(reservation_id, None)
        if held is None:
            return
        self._told.pop(reservation_id, None)
        if held.is_charged:
            # Its slots are free, and the buckets have filled up since.
            self._charge(held, 0, used - held.tokens)
            return
        self._charge(held, held.tokens, used)
        self._free_slots(held)
        for take in held.places.buckets:
            self._give_back(take, held, used, now_us)

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
        return expired_of(tenant_id, reservation_id, held.tokens, held.at_us, held.budgets)

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
                budget.spent = max(budget.spent, told.spent)
        for entry in intents:
            self._hold_again(entry, now_us + lease_us, now_us)

    def look(self, plan: Plan, epoch: int, time_us: int) -> Outlook | Stale:
        now_us = self._tick(time_us)
        self._expire(now_us, MAX_EXPIRED)
        if plan.epoch < epoch:
            return Stale(epoch)
        accounts = self._measured(_places_of(plan.takes), now_us)
        answer = _examined(plan, accounts, now_us)
        rows = [account.row() for account in accounts]
        return Outlook(now_us / SECOND_US, standings_of(plan.takes, rows), answer)

    def _tick(self, time_us: int) -> int:
        """Now; never goes back, unless the clock had run ahead by more than a minute."""
        if not time_us <= self._last_us <= time_us + MAX_CORRECTION_US:
            self._last_us = max(time_us, min(self._last_us, time_us + MAX_CORRECTION_US))
        return self._last_us

    # ── taking ───────────────────────────────────────────────────────────────────────────

    def _measured(self, places: _Places, now_us: int) -> list[Account]:
        """What is taken of, as of now."""
        kept = self._accounts.get
        return [(kept(name) or kind()).at(take, now_us) for name, take, kind in places.all]

    def _mend(self, places: _Places, accounts: Iterable[Account], now_us: int) -> None:
        """A meter from before the clock was set back would not refill until it gets there again."""
        for (name, _, _), account in zip(places.all, accounts, strict=True):
            kept = self._accounts.get(name)
            if isinstance(kept, Meter) and kept.at_us > now_us:
                self._accounts[name] = account

    def _hold(
        self, plan: Plan, tokens: int, places: _Places, accounts: Sequence[Account], now_us: int
    ) -> Taken:
        rows = [account.hold(tokens, plan.spared) for account in accounts]
        for (name, _, _), account in zip(places.all, accounts, strict=True):
            self._accounts[name] = account
        periods = tuple([account.period for account in accounts if account.period])
        held = _Held(tokens, now_us, places, periods, plan.spared)
        self._held[plan.reservation_id] = held
        self._told.pop(plan.reservation_id, None)
        self._lease(plan.reservation_id, held, now_us + to_us(plan.lease_s))
        return Taken(plan, tokens, now_us / SECOND_US, rows, periods)

    def _tidy(self, now_us: int) -> None:
        """Drop accounts that are as if they had never been: memory stays as small as what is in use."""
        for name in list(islice(self._accounts, _TIDIED)):
            if self._accounts[name].is_idle(now_us):
                del self._accounts[name]
            else:
                self._accounts.move_to_end(name)

    # ── giving back ──────────────────────────────────────────────────────────────────────

    def _charge(self, held: _Held, reserved: int, spent: int) -> None:
        kept = self._accounts.get
        for name, period in held.budgets:
            budget = kept(name)
            if isinstance(budget, Budget) and budget.period == period:
                budget.charge(reserved, spent)

    def _free_slots(self, held: _Held) -> None:
        for name in held.places.slots:
            slots = self._accounts.get(name)
            if isinstance(slots, Slots) and slots.leases > 1:
                slots.leases -= 1
            else:
                self._accounts.pop(name, None)

    def _give_back(self, take: BucketTake, held: _Held, used: int, now_us: int) -> None:
        kept = self._accounts.get(take.account)
        # Without one it was full again, and dropped: what was used beyond what was taken is owed still.
        bucket = kept if isinstance(kept, Bucket) else Bucket(take.per_minute)
        self._accounts[take.account] = bucket
        bucket.fill(bucket.limit, now_us)
        unused = max(0, held.tokens - held.spared) - used
        if unused > 0:
            bucket.give_back(unused, held.at_us)
        else:
            bucket.take(-unused)

    # ── leases ───────────────────────────────────────────────────────────────────────────

    def _lease(self, reservation_id: str, held: _Held, ends_us: int) -> None:
        held.ends_us = ends_us
        heapq.heappush(self._leases, (ends_us, reservation_id))

    def _expire(self, now_us: int, at_most: int) -> None:
        """Charge what ran out, and forget what can no longer be corrected; a bounded number of each."""
        if self._leases and self._leases[0][0] <= now_us:
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
        self._charge(held, held.tokens, held.tokens)
        self._free_slots(held)
        held.is_charged, held.ends_us = True, now_us + CORRECTABLE_US
        self._charged.append((held.ends_us, reservation_id))
        self._told[reservation_id] = None

    # ── what a ledger told ───────────────────────────────────────────────────────────────

    def _budget_in(self, name: str, period: str, now_us: int) -> Budget | None:
        """The budget in this period, kept from now on; None when it is already in a later one."""
        kept = self._accounts.get(name)
        if isinstance(kept, Budget) and kept.period >= period:
            return kept if kept.period == period else None
        longest = longest_us(period)
        budget = self._accounts[name] = Budget(period, None if longest is None else now_us + longest)
        return budget

    def _hold_again(self, entry: LedgerEntry, ends_us: int, now_us: int) -> None:
        names, periods = zip(*budgets_of(entry), strict=True)
        slots_names = tuple(slots_of(scope, owner) for scope, owner in owners_of(entry))
        places = _Places((), names, slots_names, ())
        held = _Held(entry.reserved, to_us(entry.admitted_at), places, periods)
        self._held[entry.reservation_id] = held
        for name, period in held.budgets:
            budget = self._budget_in(name, period, now_us)
            if budget is not None:
                budget.reserved += entry.reserved
        for name in slots_names:
            slots = self._accounts.setdefault(name, Slots())
            if isinstance(slots, Slots):
                slots.leases += 1
        self._lease(entry.reservation_id, held, ends_us)

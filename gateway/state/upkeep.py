"""What keeps ledger and counters telling the same, beside the requests."""

from collections import deque
from typing import Final

from loguru import logger

from gateway.accounting import Evidence, Expired, LedgerEntry, charged_in_full
from gateway.ports import Counters, LedgerStore, Spool
from gateway.state.rounds import Chore, Rounds

PERIOD_S: Final = 5.0


class Upkeep(Rounds):
    """Writes down what leases that nobody renewed have cost, and does some chores."""

    def __init__(
        self,
        counters: Counters,
        ledger: LedgerStore,
        spool: Spool,
        *chores: Chore,
        period_s: float = PERIOD_S,
    ) -> None:
        super().__init__(self._write_expired_in_turn, *chores, period_s=period_s)
        self._counters = counters
        self._ledger = ledger
        self._spool = spool

    async def _write_expired_in_turn(self) -> None:
        if await self._counters.is_my_turn(self._period_s):
            await self.write_expired()

    async def write_expired(self) -> None:
        """Charge in the ledger what ran out, in whichever process. Raises StoreUnavailable."""
        while expired := await self._counters.expired():
            for each in expired:
                await self._write(each)
            # Not before all of them are in the spool: a process that dies here leaves them to the next.
            await self._counters.heard(expired)

    async def _write(self, expired: Expired) -> None:
        entry = await self._ledger.entry(expired.reservation_id) or _intent_of(expired)
        if not entry.key_id:
            logger.error(f"{entry.reservation_id} has no end, and nobody knows whose it was")
        elif entry.evidence is Evidence.INTENT:
            logger.warning(f"{entry.reservation_id} has no end: its whole reservation is charged for now")
            self._spool.settled(charged_in_full(entry, Evidence.EXPIRED))
        elif entry.evidence is not Evidence.EXPIRED:
            # The counters lost its end, not the ledger.
            await self._counters.settle(entry.tenant_id, entry.reservation_id, entry.tokens)


async def settle_all(counters: Counters, ends: deque[LedgerEntry]) -> None:
    """Tell the counters of reservations whose processes died before they could.

    So their slots are free at once, and what was charged for a lease that ran out is corrected. What the
    counters know already changes nothing. Raises StoreUnavailable: the rest of `ends` is for the next time.
    """
    while ends:
        await counters.settle(ends[0].tenant_id, ends[0].reservation_id, ends[0].tokens)
        ends.popleft()


def _intent_of(expired: Expired) -> LedgerEntry:
    """What its process never got to tell the ledger, as far as the counters know it."""
    return LedgerEntry(
        reservation_id=expired.reservation_id,
        tenant_id=expired.tenant_id,
        key_id=expired.key_id,
        model="",
        admitted_at=expired.admitted_at,
        day=expired.day,
        month=expired.month,
        reserved=expired.tokens,
        tokens=expired.tokens,
        prompt_tokens=0,
        completion_tokens=0,
        estimated=True,
        evidence=Evidence.INTENT,
    )

"""A process that writes all entries and rows, in an order of its own: `python -m … URL SEED`."""

import asyncio
import random
import sys
from typing import Final

from attrs import evolve

from gateway.accounting import Evidence, LedgerEntry
from gateway.errors import StoreUnavailable
from gateway.storage.audit import AuditLog
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from tests.storage.samples import CHAIN, audit_row, settled

TENANTS: Final = ("ta", "tb", "tc")


def _entries() -> list[LedgerEntry]:
    dice = random.Random(7)
    entries = []
    for number in range(150):
        owner = TENANTS[number % len(TENANTS)]
        for evidence in dice.sample(list(Evidence), dice.randint(1, 4)):
            entry = settled(f"r{number}", tokens=dice.randrange(1000), reserved=dice.randrange(1000))
            key_id = f"k{number % 7}"
            entries.append(evolve(entry, evidence=evidence, tenant_id=owner, key_id=key_id))
    return entries


ENTRIES: Final = _entries()
ROWS: Final = [audit_row(number) for number in range(300)]


async def write_all(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    async with database_at(database_url) as database:
        ledger, audit = Ledger(database), AuditLog(database, CHAIN)
        for _ in range(2):
            entries = dice.sample(ENTRIES, len(ENTRIES))
            rows = dice.sample(ROWS, len(ROWS))
            while entries or rows:
                size = dice.randint(1, 40)
                try:
                    await asyncio.gather(ledger.write(entries[:size]), audit.write(rows[:size]))
                except StoreUnavailable:
                    print("again", flush=True)
                    continue
                del entries[:size], rows[:size]
                print("batch", flush=True)


if __name__ == "__main__":
    asyncio.run(write_all(sys.argv[1], int(sys.argv[2])))

"""What callers see of an outage: they ask before it, while it lasts, and behind it."""

import time
from contextlib import AbstractContextManager
from typing import Final

from attrs import evolve, frozen

from tests.effort import FACTOR
from tests.engines import wait_until
from tests.fleet.callers import Load, Told
from tests.fleet.counted_model import Order
from tests.fleet.fleet import REDIS_TIMEOUT_S, Customer, Fleet

# What was under way at its beginning may be answered just in time, and the next one waited for until the
# deadline: behind both there has to be time enough for those that are refused at once. Nightly for longer
# than a lease lives.
OUTAGE_S: Final = 3 * REDIS_TIMEOUT_S if FACTOR <= 1 else 20.0
RECOVERY_S: Final = 5.0

SHORT: Final = Order(tokens=8)
# Begun before an outage, it ends behind it.
LONG: Final = Order(tokens=round(10 * OUTAGE_S + 20), gap_s=0.1)


@frozen
class Seen:
    """By those who asked while it lasted, by all, and how long after its end somebody was served again."""

    during: list[Told]
    all: list[Told]
    recovered_s: float


def under_load(fleet: Fleet, customer: Customer, outage: AbstractContextManager[None]) -> Seen:
    """A dozen callers with short requests, and four with long ones, which have to come to their end."""
    long = evolve(LONG, label=customer.id)
    with (
        Load(fleet.urls, customer.key, long, callers=4, once=True) as running,
        Load(fleet.urls, customer.key, SHORT) as load,
    ):
        assert wait_until(lambda: len(fleet.model.labelled(customer.id)) == 4, 20)
        assert wait_until(lambda: len(load.since(0)) >= 40, 20)
        with outage:
            began = time.monotonic()
            time.sleep(OUTAGE_S)
            ended = time.monotonic()
            during = [one for one in load.since(began) if one.ended_at < ended]
        back = time.monotonic()
        assert wait_until(lambda: any(one.status == 200 for one in load.since(back)), RECOVERY_S)
        time.sleep(0.5)
    assert all(one.is_complete for one in running.told)
    assert [work.tokens for work in fleet.model.labelled(customer.id)] == [LONG.tokens] * 4
    recovered_s = min(one.ended_at for one in load.since(back) if one.status == 200) - back
    return Seen(during, [*load.told, *running.told], recovered_s)

"""What is left of budgets, read for a scrape and for nobody's request."""

from collections.abc import Sequence

from attrs import define, field

from gateway.accounting import Policy, Scope, Sum, Window
from gateway.errors import StoreUnavailable
from gateway.model import Tenant
from gateway.ops.budgets import FRESH_S, BudgetLeft, BudgetsLeft
from tests.asgi import FakeClock

ACME = Tenant("t1", "acme", 0.0, Policy(daily_tokens=100, total_tokens=1000))
TODAY = "2027-01-15"  # of FakeClock


@define
class Books:
    """Tenants and sums as the database would tell them."""

    tenants: list[Tenant] = field(factory=lambda: [ACME])
    sums: list[Sum] = field(factory=list)
    is_down: bool = False
    reads: int = 0

    async def by_ids(self, ids: Sequence[str]) -> list[Tenant]:
        self.reads += 1
        if self.is_down:
            raise StoreUnavailable
        return [tenant for tenant in self.tenants if tenant.id in ids]

    async def sums_of(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> list[Sum]:
        return [one for one in self.sums if one.owner in tenant_ids and one.period in periods]


async def test_what_is_neither_spent_nor_reserved_is_left():
    """Of the day that it is, and in total; a window without a budget is not told."""
    books = Books(sums=[Sum(Scope.TENANT, "t1", TODAY, 30, 20), Sum(Scope.TENANT, "t1", "total", 1500, 0)])

    left = await BudgetsLeft(books, books, FakeClock()).of(["t1", "gone"])

    assert left == (BudgetLeft("acme", Window.DAY, 100, 50), BudgetLeft("acme", Window.TOTAL, 1000, 0))


async def test_a_new_day_is_whole_again():
    books = Books(sums=[Sum(Scope.TENANT, "t1", "2027-01-14", 100, 0)])

    left = await BudgetsLeft(books, books, FakeClock()).of(["t1"])

    assert left[0].remaining == 100


async def test_it_is_read_at_most_so_often():
    """However many ask."""
    books, clock = Books(), FakeClock()
    budgets = BudgetsLeft(books, books, clock)

    await budgets.of(["t1"])
    await budgets.of(["t1"])
    assert books.reads == 1

    clock.monotonic += FRESH_S
    await budgets.of(["t1"])
    assert books.reads == 2


async def test_what_is_not_known_is_not_told():
    """A database that is away takes these numbers with it, and nothing else."""
    books = Books(is_down=True)

    assert await BudgetsLeft(books, books, FakeClock()).of(["t1"]) == ()


async def test_a_tenant_of_a_zone_that_is_no_more_has_no_day():
    books = Books(tenants=[Tenant("t1", "acme", 0.0, Policy(daily_tokens=1), "Mars/Base")])

    assert await BudgetsLeft(books, books, FakeClock()).of(["t1"]) == ()


async def test_nobody_was_served_yet():
    """Nothing is asked."""
    books = Books()

    assert await BudgetsLeft(books, books, FakeClock()).of([]) == ()
    assert books.reads == 0

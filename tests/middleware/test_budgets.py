"""The layer Budgets alone: what it remembers of its callers, and for how long."""

import asyncio

from attrs import define, evolve, field

from gateway.accounting import BudgetTake, Policy, Scope, Take, Window
from gateway.formats.chat import ChatCall, Message
from gateway.middleware.budgets import Budgets
from gateway.middleware.context import open_exchange
from gateway.model import ModelCard, Principal
from gateway.rules.plans import OutputBounds
from gateway.state.prompt_lore import PromptLore
from tests.asgi import PRINCIPAL, FakeClock, exchange, nobody, scope_of

# Of 2027-01-16, UTC.
MIDNIGHT = 1_800_057_600.0


@define
class Backend:
    name: str = "b"
    kind: str = "ollama"


@define
class Planner:
    """The layer over a clock that stands still."""

    clock: FakeClock = field(factory=FakeClock)
    layer: Budgets = field(init=False)

    def __attrs_post_init__(self) -> None:
        async def app(*_: object) -> None: ...

        self.layer = Budgets(
            app, clock=self.clock, lore=PromptLore(), outputs=OutputBounds(1000, 100), lease_s=15.0
        )

    def takes(self, principal: Principal) -> tuple[Take, ...]:
        given = exchange(
            principal=principal,
            call=ChatCall("m", (Message("user", "Hi"),), stream=False),
            target=(Backend(), ModelCard("m")),
        )
        scope = scope_of("POST", "/api/chat")
        open_exchange(scope, given)
        asyncio.run(self.layer(scope, nobody, nobody))  # type: ignore[arg-type]
        return given.takes

    def day(self, principal: Principal) -> tuple[str, int | None]:
        """The current day of the tenant's budget, and its limit."""
        (take,) = (
            take
            for take in self.takes(principal)
            if isinstance(take, BudgetTake) and (take.scope, take.window) == (Scope.TENANT, Window.DAY)
        )
        return take.periods[0].id, take.limit


def test_a_caller_takes_the_same_within_a_second():
    planner = Planner()

    assert planner.takes(PRINCIPAL) is planner.takes(PRINCIPAL)


def test_a_changed_policy_counts_at_once():
    """Also within the second, and for a key that has taken something by the old one."""
    planner = Planner()

    days = [planner.day(evolve(PRINCIPAL, tenant_policy=Policy(daily_tokens=limit))) for limit in (5, 7)]

    assert [limit for _, limit in days] == [5, 7]


def test_a_day_begins_with_its_first_second():
    planner = Planner(FakeClock(wall=MIDNIGHT - 0.001))

    before = planner.day(PRINCIPAL)
    planner.clock.wall = MIDNIGHT

    assert (before, planner.day(PRINCIPAL)) == (("2027-01-15", None), ("2027-01-16", None))


def test_nothing_is_remembered_of_callers_that_do_not_come_again():
    planner = Planner()
    for number in range(100):
        planner.takes(evolve(PRINCIPAL, key_id=f"k{number}"))

    planner.clock.wall += 1
    planner.takes(PRINCIPAL)

    assert set(planner.layer._takes) == {PRINCIPAL.key_id}

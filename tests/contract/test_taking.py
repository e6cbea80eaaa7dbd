"""Taking: all or nothing, to the token, and a refusal that says which and until when."""

import pytest

from gateway.accounting import MAX_TOKENS, Cold, Outlook, Plan, Refused, Scope, Standing, Take, Window
from tests.contract.plans import JANUARY, MIDNIGHT, MONDAY, NOW, TOTAL, bucket, budget, plan, rate, slots
from tests.contract.stores import Store, refusal, standings, take, used

TENANT = Scope.TENANT

# One of each kind, with room for `needed=10` once.
FULL_AFTER_ONE = [
    pytest.param(rate(1), id="rate"),
    pytest.param(bucket(10), id="bucket"),
    pytest.param(slots(1), id="slots"),
    pytest.param(budget(10), id="budget"),
]


async def test_a_tenant_that_the_store_was_not_told_of_is_cold(cold_store: Store):
    """Nothing is known of what it has spent, so nothing may be taken."""
    await cold_store.set_time(NOW)

    assert isinstance(await cold_store.counters.take(plan("r1", rate(60))), Cold)
    assert isinstance(await cold_store.counters.look(plan("r1", rate(60))), Cold)


async def test_a_take_tells_where_everything_stands(store: Store):
    """Whole answers, as the headers of a request are made from them."""
    takes = (rate(60), bucket(600), slots(4), budget(1000), budget(None, Window.TOTAL))

    taken = await take(store, plan("r1", *takes, needed=10, wanted=100))

    assert (taken.tokens, taken.now, taken.periods) == (100, NOW, (MONDAY.id, TOTAL.id))
    assert taken.standings == (
        Standing(takes[0], used=1, reserved=0, resets_at=NOW + 1),
        Standing(takes[1], used=100, reserved=0, resets_at=NOW + 10),
        Standing(takes[2], used=1, reserved=0, resets_at=None),
        Standing(takes[3], used=0, reserved=100, resets_at=MIDNIGHT),
        Standing(takes[4], used=0, reserved=100, resets_at=None),
    )


async def test_a_bucket_is_taken_less_where_it_is_spared(store: Store):
    """By so much less than a budget, which is taken all of it."""
    takes = (bucket(100), budget(1000))

    taken = await take(store, plan("r1", *takes, needed=100, wanted=130, spared=40))
    refused = await refusal(store, plan("r2", *takes, needed=60, spared=40))

    assert taken.tokens == 130
    assert await used(store, plan("r", *takes)) == [(90, 0), (0, 130)]
    assert refused.standing == Standing(takes[0], used=90, reserved=0, resets_at=NOW + 54)
    assert (await take(store, plan("r3", *takes, needed=50, wanted=99, spared=40))).tokens == 50


async def test_a_refusal_tells_the_take_that_has_too_little(store: Store):
    """Of several alike the first in the plan's order; whole answer."""
    await take(store, plan("r1", slots(9), budget(15), budget(10, Window.MONTH)))

    verdict = await store.counters.take(plan("r2", slots(9), budget(15), budget(10, Window.MONTH)))

    standing = Standing(budget(15), used=0, reserved=10, resets_at=MIDNIGHT)
    assert verdict == Refused(standing, now=NOW, retry_at=NOW + 1)


@pytest.mark.parametrize(
    ("short", "told"),
    [
        pytest.param([rate(1), slots(1), budget(10)], 2, id="a-budget-that-is-spent-today"),
        pytest.param([slots(1), rate(1), bucket(10)], 1, id="the-slower-rate"),
        pytest.param([budget(10), budget(10, Window.MONTH)], 1, id="the-month-after-the-day"),
        pytest.param([budget(10, Window.MONTH), budget(10, Window.TOTAL)], 1, id="a-total-that-is-spent"),
        pytest.param([rate(1), budget(10), slots(0)], 2, id="what-is-denied"),
        pytest.param([rate(1), budget(10), bucket(9)], 2, id="what-can-never-fit"),
        pytest.param([rate(0), budget(0)], 0, id="the-first-of-two-that-never-fit"),
    ],
)
async def test_of_several_refusals_the_one_that_lasts_longest_is_told(
    store: Store, short: list[Take], told: int
):
    """Nobody is told to come back at a time at which another one still refuses for sure."""
    fitting = [each for each in short if each not in (slots(0), bucket(9), rate(0), budget(0))]
    await take(store, plan("r1", *fitting))
    await store.counters.settle("acme", "r1", 10)
    await take(store, plan("r2", *(each for each in fitting if each == slots(1))))

    assert (await refusal(store, plan("r3", *short))).standing.take == short[told]


@pytest.mark.parametrize("full", FULL_AFTER_ONE)
async def test_a_refusal_takes_nothing(store: Store, full: Take):
    """Whatever refuses: all others stand as before."""
    others = (rate(60, "t", TENANT), bucket(600, "t", TENANT), slots(9, "t", TENANT), budget(99, owner="t"))
    await take(store, plan("r1", full))
    before = await standings(store, plan("r2", *others, full))

    assert (await refusal(store, plan("r2", *others, full))).standing == before[-1]

    assert await standings(store, plan("r2", *others, full)) == before


@pytest.mark.parametrize("full", FULL_AFTER_ONE)
async def test_the_same_plan_twice_is_taken_once(store: Store, full: Take):
    """An answer that got lost may be asked for again."""
    first = await take(store, plan("r1", full, wanted=20))

    assert await store.other.take(plan("r1", full, wanted=20)) == first


@pytest.mark.parametrize("spent", [bucket(10), budget(10)], ids=["bucket", "budget"])
async def test_what_costs_no_tokens_passes_where_all_are_spent(store: Store, spent: Take):
    """It is only counted where requests are: to count tokens costs none."""
    await take(store, plan("r1", rate(60), spent))

    assert (await take(store, plan("r2", rate(60), spent, needed=0))).tokens == 0
    asked, of_tokens = await used(store, plan("r3", rate(60), spent))

    assert asked == (2, 0)
    assert sum(of_tokens) == 10


@pytest.mark.parametrize(
    "zero", [rate(0), bucket(0), slots(0), budget(0), budget(0, Window.MONTH), budget(0, Window.TOTAL)]
)
async def test_zero_denies_for_ever(store: Store, zero: Take):
    """Also a request that needs no tokens."""
    assert (await refusal(store, plan("r1", zero))).retry_at is None
    assert (await refusal(store, plan("r2", zero, needed=0))).retry_at is None


@pytest.mark.parametrize("small", [bucket(9), budget(9), budget(9, Window.TOTAL)])
async def test_what_can_never_fit_has_no_time_to_retry(store: Store, small: Take):
    """The limit is smaller than the need."""
    assert (await refusal(store, plan("r1", small))).retry_at is None


async def test_owners_scopes_and_tenants_are_counted_apart(store: Store):
    """A key's limit is no other key's, nor that of a tenant with the same name."""
    await take(store, plan("r1", rate(1), slots(1), budget(10)))

    await take(store, plan("r2", rate(1, "k2"), slots(1, "k2"), budget(10, owner="k2")))
    await take(store, plan("r3", rate(1, "k1", TENANT), slots(1, "k1", TENANT), budget(10, scope=TENANT)))
    await take(store, plan("r4", rate(1), slots(1), budget(10), tenant="umbrella"))


async def test_a_plan_of_nothing_is_taken(store: Store):
    """Where no limit is set at all."""
    nothing = plan("r1", needed=5, wanted=7)

    taken = await take(store, nothing)

    assert (taken.plan, taken.tokens, taken.now, taken.standings, taken.periods) == (nothing, 7, NOW, (), ())


async def test_limits_change_at_once(store: Store):
    """What was used stays used."""
    await take(store, plan("r1", bucket(10), budget(10), slots(1)))

    assert (await take(store, plan("r2", bucket(25), budget(25), slots(2), wanted=99))).tokens == 15
    assert (await refusal(store, plan("r3", bucket(20)))).standing.used == 25


# ── how much ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("takes", "granted"),
    [
        pytest.param([bucket(1000), budget(1000)], 100, id="what-is-wanted"),
        pytest.param([bucket(50), budget(1000)], 50, id="what-the-bucket-holds"),
        pytest.param([bucket(1000), budget(70), budget(60, Window.MONTH)], 60, id="what-every-budget-allows"),
        pytest.param([budget(10)], 10, id="what-is-needed"),
        pytest.param([budget(None)], 100, id="no-limit"),
    ],
)
async def test_the_amount_is_the_most_that_all_allow(store: Store, takes: list[Take], granted: int):
    """Between what is needed and what is wanted; the same for all."""
    taken = await take(store, plan("r1", *takes, needed=10, wanted=100))

    assert taken.tokens == granted
    assert {standing.used + standing.reserved for standing in taken.standings} == {granted}


async def test_one_token_less_than_needed_is_a_refusal(store: Store):
    """To the token."""
    await take(store, plan("r1", budget(1000), needed=991))

    await refusal(store, plan("r2", budget(1000), needed=10))
    assert (await take(store, plan("r3", budget(1000), needed=9))).tokens == 9


async def test_the_largest_budget_is_counted_to_the_token(store: Store):
    """Where doubles end."""
    await take(store, plan("r1", budget(MAX_TOKENS), needed=MAX_TOKENS - 1))

    assert await used(store, plan("r2", budget(MAX_TOKENS))) == [(0, MAX_TOKENS - 1)]
    await store.counters.settle("acme", "r1", MAX_TOKENS - 3)
    assert await used(store, plan("r2", budget(MAX_TOKENS))) == [(MAX_TOKENS - 3, 0)]
    assert (await take(store, plan("r2", budget(MAX_TOKENS), needed=1, wanted=9))).tokens == 3


async def test_a_budget_without_limit_counts_for_the_day_that_it_gets_one(store: Store):
    """`limit=None` only counts."""
    await take(store, plan("r1", budget(None), needed=500))

    assert (await refusal(store, plan("r2", budget(400)))).standing.reserved == 500


# ── requests and tokens per minute ───────────────────────────────────────────────────────


@pytest.mark.parametrize("per_minute", [1, 7, 60, 210])
async def test_a_minutes_worth_of_requests_passes_at_once_and_no_more(store: Store, per_minute: int):
    """The burst is exact, and after one interval exactly one more passes."""
    for number in range(per_minute):
        await take(store, plan(f"r{number}", rate(per_minute)))
    refused = await refusal(store, plan("more", rate(per_minute)))

    assert refused.standing.used == per_minute
    assert refused.retry_at == pytest.approx(NOW + 60 / per_minute, abs=2e-6)
    assert refused.retry_at is not None
    await store.set_time(refused.retry_at - 0.001)
    await refusal(store, plan("early", rate(per_minute)))
    await store.set_time(refused.retry_at)
    await take(store, plan("in time", rate(per_minute)))
    await refusal(store, plan("again", rate(per_minute)))


async def test_requests_at_their_pace_pass_for_ever(store: Store):
    """No drift: ten minutes of one request per interval."""
    for number in range(7 * 10):
        await store.set_time(NOW + number * 60 / 7)
        await take(store, plan(f"r{number % 3}", rate(7), lease_s=1.0))

    assert (await standings(store, plan("r", rate(7))))[0].used == 1


async def test_a_bucket_fills_up_at_its_rate(store: Store):
    """600 a minute are 10 a second."""
    await take(store, plan("r1", bucket(600), needed=600))
    refused = await refusal(store, plan("r2", bucket(600), needed=50))

    assert refused.retry_at == pytest.approx(NOW + 5, abs=2e-6)
    assert refused.standing == Standing(bucket(600), used=600, reserved=0, resets_at=NOW + 60)
    await store.set_time(NOW + 4.9)
    await refusal(store, plan("r2", bucket(600), needed=50))
    await store.set_time(NOW + 6)
    assert (await take(store, plan("r2", bucket(600), needed=50, wanted=600))).tokens == 60


async def test_a_bucket_never_holds_more_than_a_minutes_worth(store: Store):
    """However long nobody came."""
    await take(store, plan("r1", bucket(600), needed=600))
    await store.set_time(NOW + 3600)

    assert (await take(store, plan("r2", bucket(600), wanted=9999))).tokens == 600


# ── slots and budgets ────────────────────────────────────────────────────────────────────


async def test_so_many_at_the_same_time_and_no_more(store: Store):
    """A slot may come free at any time, so it is worth asking again soon."""
    await take(store, plan("r1", slots(2)))
    await take(store, plan("r2", slots(2)))

    assert await store.counters.take(plan("r3", slots(2))) == Refused(
        Standing(slots(2), used=2, reserved=0, resets_at=None), now=NOW, retry_at=NOW + 1
    )


@pytest.mark.parametrize(
    ("window", "retry_at"),
    [(Window.DAY, MIDNIGHT), (Window.MONTH, JANUARY.ends_at), (Window.TOTAL, None)],
)
async def test_a_spent_budget_comes_back_with_the_next_period(
    store: Store, window: Window, retry_at: float | None
):
    """The total never does."""
    await take(store, plan("r1", budget(10, window)))
    await store.counters.settle("acme", "r1", 10)

    assert (await refusal(store, plan("r2", budget(10, window)))).retry_at == retry_at


async def test_a_reserved_budget_may_come_back_at_any_time(store: Store):
    """Running requests give back what they do not use."""
    await take(store, plan("r1", budget(10, Window.TOTAL)))

    assert (await refusal(store, plan("r2", budget(10, Window.TOTAL)))).retry_at == NOW + 1


async def test_a_look_takes_nothing(store: Store):
    """Asked as often as one likes."""
    asked: Plan = plan("r1", rate(60), bucket(600), slots(4), budget(1000))

    assert await used(store, asked) == await used(store, asked) == [(0, 0)] * 4


async def test_a_look_tells_what_would_be_granted(store: Store):
    """And where everything stands before; whole answer."""
    takes = (rate(60), bucket(600), slots(4), budget(1000), budget(None, Window.TOTAL))
    await take(store, plan("r1", *takes, needed=500))

    foreseen = await store.other.look(plan("r2", *takes, needed=10, wanted=300))

    assert foreseen == Outlook(
        now=NOW,
        standings=(
            Standing(takes[0], used=1, reserved=0, resets_at=NOW + 1),
            Standing(takes[1], used=500, reserved=0, resets_at=NOW + 50),
            Standing(takes[2], used=1, reserved=0, resets_at=None),
            Standing(takes[3], used=0, reserved=500, resets_at=MIDNIGHT),
            Standing(takes[4], used=0, reserved=500, resets_at=None),
        ),
        answer=100,
    )
    assert (await take(store, plan("r2", *takes, needed=10, wanted=300))).tokens == 100


@pytest.mark.parametrize("full", FULL_AFTER_ONE)
async def test_a_look_tells_what_would_be_refused(store: Store, full: Take):
    await take(store, plan("r1", full))

    foreseen = await store.other.look(plan("r2", full))

    assert isinstance(foreseen, Outlook)
    assert foreseen.answer == await refusal(store, plan("r2", full))

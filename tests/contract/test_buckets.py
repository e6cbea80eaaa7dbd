"""Buckets: what a request did not use is given back, and nothing is given twice."""

from itertools import count

import hypothesis.strategies as st
from hypothesis import given

from gateway.accounting import Taken
from gateway.state.accounts import MAX_LOWS
from tests.contract.plans import NOW, bucket, plan, rate
from tests.contract.reference import Reference, keeps_the_law
from tests.contract.stores import Store, refusal, standings, take, used
from tests.contract.trials import Trial

# 10 a second.
TEN = bucket(600)


async def test_what_has_filled_up_again_is_not_given_back(store: Store):
    """A minute later the bucket is full, without any refund: one on top would be a second minute's worth."""
    await take(store, plan("slow", TEN, needed=600, lease_s=999))
    await store.set_time(NOW + 60)
    await take(store, plan("r1", TEN, needed=600))

    await store.counters.settle("acme", "slow", 0)

    await refusal(store, plan("r2", TEN, needed=1))


async def test_what_a_busy_bucket_still_lacks_is_given_back_in_full(store: Store):
    """However long it took: no refill was lost for it."""
    await take(store, plan("slow", TEN, needed=100, lease_s=999))
    await take(store, plan("r1", TEN, needed=400))
    await store.set_time(NOW + 30)

    await store.counters.settle("acme", "slow", 0)

    assert await used(store, plan("r", TEN)) == [(100, 0)]


async def test_a_limit_of_nothing_does_not_keep_a_bucket_from_filling_up(store: Store):
    """Who is denied for a while finds a full one when the limit is as it was."""
    await take(store, plan("r1", TEN, rate(60), needed=600))
    await store.set_time(NOW + 40)
    await refusal(store, plan("r2", bucket(0), rate(0), needed=1))
    await store.set_time(NOW + 60)

    assert await used(store, plan("r", TEN, rate(60))) == [(0, 0), (0, 0)]


async def test_between_the_two_it_gets_back_what_it_lacked_all_the_time(store: Store):
    """It was down to 40 once: the other 60 had been refilled."""
    await take(store, plan("slow", TEN, needed=100, lease_s=999))
    await store.set_time(NOW + 6)
    await take(store, plan("r1", TEN, needed=500))
    await store.set_time(NOW + 7)

    await store.counters.settle("acme", "slow", 0)

    assert await used(store, plan("r", TEN)) == [(490, 0)]


async def test_more_than_was_reserved_is_owed_also_when_all_has_filled_up(store: Store):
    """And the bucket is forgotten, as full ones are."""
    await take(store, plan("slow", TEN, needed=1, lease_s=999))
    await store.set_time(NOW + 60)
    for number in range(50):
        await take(store, plan(f"r{number}"))

    await store.counters.settle("acme", "slow", 31)

    assert (await standings(store, plan("r", TEN)))[0].used == 30


async def test_a_bucket_of_many_small_takes_gives_back_nearly_all(store: Store):
    """It remembers so many lows and no more: what it forgets errs on the safe side, by little."""
    names = [f"r{number}" for number in range(3 * MAX_LOWS)]
    for number, name in enumerate(names):
        await store.set_time(NOW + number / 100)
        await take(store, plan(name, TEN, needed=2, lease_s=999))
    for name in names:
        await store.counters.settle("acme", name, 0)

    assert (await standings(store, plan("r", TEN)))[0].used <= 6


@st.composite
def moves(draw: st.DrawFn) -> list[tuple[float, int, int]]:
    """Pauses, and what is then done: take so many, or settle one of those that run to so many less."""
    pauses, tokens = st.sampled_from([0.0, 1.0, 3.0, 7.0, 15.0]), st.integers(0, 60)
    return draw(st.lists(st.tuples(pauses, st.integers(0, 5), tokens), max_size=30))


def test_a_bucket_lacks_what_was_used_and_what_is_held(trial: Trial):
    """To the token, after any takes and settlements: as if it had been known from the start what is used."""

    @trial.settings(100)
    @given(moves())
    def holds(done: list[tuple[float, int, int]]) -> None:
        trial.run(_play(trial.store, done))

    holds()


async def _play(store: Store, done: list[tuple[float, int, int]]) -> None:
    model, names, two = Reference(NOW), (f"r{number}" for number in count()), bucket(120)
    await store.set_time(NOW)
    await store.lose()
    await store.counters.restore("acme", [], [], 15.0)
    model.restore({}, set(), 15.0)
    for pause, which, tokens in done:
        model.now += pause
        await store.set_time(model.now)
        if name := dict(enumerate(model.held)).get(which):
            await store.other.settle("acme", name, max(0, model.held[name].tokens - tokens))
            model.settle(name, max(0, model.held[name].tokens - tokens))
        else:
            asked = plan(next(names), two, needed=0, wanted=tokens, lease_s=9999)
            verdict = await store.counters.take(asked)
            assert isinstance(verdict, Taken)
            assert verdict.tokens == model.take(asked)
        (standing,) = await standings(store, plan("r", two))
        assert standing.used == -(-model.missing(two) // 1)
    assert keeps_the_law(model.meters[two.account], two.per_minute)

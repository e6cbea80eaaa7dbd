"""Limits: what a request takes, and what a caller is told when it can't."""

import pytest
from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Period,
    Policy,
    RateTake,
    Refused,
    Scope,
    SlotTake,
    Standing,
    Window,
)
from gateway.errors import GatewayError, InsufficientQuota, RateLimited, RequestTooExpensive
from gateway.rules import limits
from gateway.rules.limits import refusal_of, remaining_of, requests_left, takes
from gateway.state.local_meters import Bucket

KEY, TENANT = Scope.KEY, Scope.TENANT


@pytest.mark.parametrize(
    ("tenant", "key", "taken"),
    [
        pytest.param(Policy(), Policy(), (), id="no limits: nothing"),
        pytest.param(
            Policy(rpm=60),
            Policy(rpm=30),
            (RateTake(KEY, "k1", 30), RateTake(TENANT, "t1", 60)),
            id="both limits apply, the key's stands first",
        ),
        pytest.param(
            Policy(rpm=30),
            Policy(rpm=60),
            (RateTake(KEY, "k1", 60), RateTake(TENANT, "t1", 30)),
            id="a key may have more than its tenant: the tenant's holds all the same",
        ),
        pytest.param(Policy(), Policy(rpm=30), (RateTake(KEY, "k1", 30),), id="the key's alone"),
        pytest.param(
            Policy(rpm=60), Policy(), (RateTake(TENANT, "t1", 60),), id="an inherited rate is implied"
        ),
        pytest.param(
            Policy(concurrent=4), Policy(), (SlotTake(TENANT, "t1", 4),), id="inherited places are implied"
        ),
        pytest.param(
            Policy(tpm=9_000),
            Policy(),
            (BucketTake(TENANT, "t1", 9_000),),
            id="an inherited bucket is implied",
        ),
        pytest.param(
            Policy(rpm=60),
            Policy(rpm=0),
            (RateTake(KEY, "k1", 0), RateTake(TENANT, "t1", 60)),
            id="0 is a limit, not nothing",
        ),
        pytest.param(
            Policy(rpm=60, tpm=9_000, concurrent=4),
            Policy(rpm=30, tpm=3_000, concurrent=2),
            (
                *(RateTake(KEY, "k1", 30), RateTake(TENANT, "t1", 60)),
                *(SlotTake(KEY, "k1", 2), SlotTake(TENANT, "t1", 4)),
                *(BucketTake(KEY, "k1", 3_000), BucketTake(TENANT, "t1", 9_000)),
            ),
            id="all of them",
        ),
    ],
)
def test_what_a_request_takes(tenant, key, taken):
    """Budgets are another rule's."""
    assert takes(tenant, key, "t1", "k1") == taken


# ── what a key inherits is implied by its tenant's ───────────────────────────────────────


@define
class Rate:
    """GCRA for `limit` requests a minute, with a burst of a minute's worth."""

    limit: int
    arrival: float = 0.0

    def may_take(self, now: float) -> bool:
        return max(self.arrival, now) + 60 / self.limit <= now + 60

    def take(self, now: float) -> None:
        self.arrival = max(self.arrival, now) + 60 / self.limit


@define
class Places:
    limit: int
    held: list[int] = field(factory=list)

    def may_take(self) -> bool:
        return len(self.held) < self.limit


PAUSES_AND_KEYS = st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["k1", "k2"])), max_size=60)


@given(limit=st.integers(1, 20), arrivals=PAUSES_AND_KEYS)
def test_a_rate_that_a_key_inherits_would_never_refuse_by_itself(limit, arrivals):
    """So it is not taken: whenever the tenant's admits, the key's own would."""
    of_tenant, of_keys, now = Rate(limit), {"k1": Rate(limit), "k2": Rate(limit)}, 0.0
    for pause, key in arrivals:
        now += pause
        if of_tenant.may_take(now):
            assert of_keys[key].may_take(now)
            of_tenant.take(now)
            of_keys[key].take(now)


@given(limit=st.integers(1, 5), events=st.lists(st.tuples(st.booleans(), st.sampled_from(["k1", "k2"]))))
def test_places_that_a_key_inherits_would_never_refuse_by_themselves(limit, events):
    """Its requests are among those of its tenant."""
    of_tenant, of_keys = Places(limit), {"k1": Places(limit), "k2": Places(limit)}
    for number, (begins, key) in enumerate(events):
        if begins and of_tenant.may_take():
            assert of_keys[key].may_take()
            of_tenant.held.append(number)
            of_keys[key].held.append(number)
        elif not begins and of_keys[key].held:
            of_tenant.held.remove(of_keys[key].held.pop(0))


@given(
    limit=st.integers(1, 200),
    moves=st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from(["k1", "k2"]), st.integers(0, 5), st.integers(0, 60)),
        max_size=60,
    ),
)
@example(
    limit=100,
    moves=[(0, "k2", 5, 50), (20, "k1", 5, 0), (10, "k1", 5, 100), (0, "k2", 0, 0), (0, "k1", 5, 50)],
)
def test_a_bucket_that_a_key_inherits_would_never_refuse_by_itself(limit, moves):
    """Whatever is given back, however late, of its own and of other keys' requests."""
    of_tenant, of_keys, now = Bucket(), {"k1": Bucket(), "k2": Bucket()}, 0
    held: list[tuple[str, int, int]] = []
    for pause_s, key, which, tokens in moves:
        now += round(pause_s * 1_000_000)
        of_tenant.fill(limit, now)
        of_keys[key].fill(limit, now)
        if which < len(held) and held[which][0] == key:
            _, taken_us, reserved = held.pop(which)
            unused = max(0, reserved - tokens)
            of_tenant.give_back(unused, taken_us)
            of_keys[key].give_back(unused, taken_us)
        elif of_tenant.free >= tokens:
            assert of_keys[key].free >= tokens
            of_tenant.take(tokens)
            of_keys[key].take(tokens)
            held.append((key, now, tokens))


# ── words ────────────────────────────────────────────────────────────────────────────────

NOW = 1_795_450_800.0  # 2026-11-23T16:20:00Z
MIDNIGHT = 1_795_478_400.0
DAY = (Period("2026-11-23", MIDNIGHT), Period("2026-11-24", MIDNIGHT + 86_400))
TOTAL = (Period("total", None),)


def told(
    take, *, used=0, reserved=0, resets_at=None, retry_at=None, tokens_needed=500, spared=0
) -> GatewayError:
    standing = Standing(take, used, reserved, resets_at)
    refused = Refused(standing, NOW, retry_at)
    return refusal_of(refused, key="ci-build", tenant="acme", tokens_needed=tokens_needed, spared=spared)


def facts(error: GatewayError) -> tuple[type[GatewayError], str, list[tuple[bytes, bytes]]]:
    return type(error), error.sentence, error.headers()


def test_too_many_requests():
    """The key, its limit and the wait are named; the wait is in the header as well."""
    error = told(RateTake(KEY, "k1", 30), used=30, resets_at=NOW + 60, retry_at=NOW + 11.2)

    assert facts(error) == (
        RateLimited,
        "The key 'ci-build' may send 30 requests per minute; try again in 12 s.",
        [(b"retry-after", b"12")],
    )
    assert isinstance(error, RateLimited)
    assert error.unit == "requests"


def test_too_many_requests_of_a_tenant():
    """Whoever holds another key of it may have sent them."""
    error = told(RateTake(TENANT, "t1", 1), used=1, resets_at=NOW + 60, retry_at=NOW + 60)

    assert facts(error) == (
        RateLimited,
        "The tenant 'acme' may send 1 request per minute; try again in 60 s.",
        [(b"retry-after", b"60")],
    )


def test_too_many_tokens():
    """What is left and what is needed say whether a shorter request would pass now."""
    error = told(BucketTake(KEY, "k1", 10_000), used=9_700, resets_at=NOW + 59, retry_at=NOW + 1.2)

    assert facts(error) == (
        RateLimited,
        "The key 'ci-build' may use 10,000 tokens per minute: 300 are left and this request may need 500; "
        "try again in 2 s.",
        [(b"retry-after", b"2")],
    )
    assert isinstance(error, RateLimited)
    assert error.unit == "tokens"


@pytest.mark.parametrize(
    ("at_least", "error"),
    [
        pytest.param(None, RequestTooExpensive, id="the bound is all that is known"),
        pytest.param(301, RequestTooExpensive, id="more than the limit for sure"),
        pytest.param(300, RateLimited, id="it may be less, once it is counted"),
    ],
)
def test_what_is_refused_for_good_is_certain(at_least, error):
    """A bound that a count may lower proves nothing."""
    refused = Refused(Standing(BucketTake(KEY, "k1", 300), 0, 0, NOW), NOW, None)

    told = refusal_of(refused, key="ci", tenant="acme", tokens_needed=500, at_least=at_least)

    assert type(told) is error


def test_a_bucket_that_is_spared_some_refuses_by_the_rest():
    """That is all that it would be taken."""
    bucket = BucketTake(KEY, "k1", 300)

    error = told(bucket, used=200, resets_at=NOW + 40, retry_at=NOW + 30, tokens_needed=500, spared=250)

    assert error.sentence == (
        "The key 'ci-build' may use 300 tokens per minute: 100 are left and this request may need 250; "
        "try again in 30 s."
    )
    assert isinstance(told(bucket, tokens_needed=500, spared=199), RequestTooExpensive)


def test_too_many_at_the_same_time():
    """Nobody knows when one ends: a short wait is as good as any."""
    error = told(SlotTake(TENANT, "t1", 2), used=2)

    assert facts(error) == (
        RateLimited,
        "The tenant 'acme' may have 2 requests running at the same time; try again in 2 s.",
        [(b"retry-after", b"2")],
    )
    assert isinstance(error, RateLimited)
    assert error.unit == "requests"


def test_a_spent_day():
    """Clients wait until the window turns, and do not try by themselves."""
    take = BudgetTake(KEY, "k1", Window.DAY, DAY, limit=100_000)

    error = told(take, used=99_900, reserved=50, resets_at=MIDNIGHT, retry_at=MIDNIGHT)

    assert facts(error) == (
        InsufficientQuota,
        "The key 'ci-build' may use 100,000 tokens per day: 99,900 are used, 50 are held by requests that "
        "run, and this one may need 500; come back at 2026-11-24T00:00:00Z, or ask the operator of this "
        "gateway for more.",
        [(b"retry-after", b"27600"), (b"x-should-retry", b"false")],
    )


def test_a_day_that_is_held_but_not_spent():
    """What running requests reserved comes back when they end, long before the window turns."""
    take = BudgetTake(KEY, "k1", Window.DAY, DAY, limit=100_000)

    error = told(take, used=10_000, reserved=89_900, resets_at=MIDNIGHT, retry_at=NOW + 1)

    assert facts(error) == (
        InsufficientQuota,
        "The key 'ci-build' may use 100,000 tokens per day: 10,000 are used, 89,900 are held by requests "
        "that run, and this one may need 500; try again when one of them has ended.",
        [(b"retry-after", b"1"), (b"x-should-retry", b"false")],
    )


def test_a_spent_total():
    """It never turns: Retry-After is a day."""
    take = BudgetTake(TENANT, "t1", Window.TOTAL, TOTAL, limit=1_000_000)

    assert facts(told(take, used=1_000_000)) == (
        InsufficientQuota,
        "The tenant 'acme' may use 1,000,000 tokens in total: 1,000,000 are used, 0 are held by requests "
        "that run, and this one may need 500; ask the operator of this gateway for more.",
        [(b"retry-after", b"86400"), (b"x-should-retry", b"false")],
    )


@pytest.mark.parametrize(
    ("take", "sentence"),
    [
        pytest.param(
            BucketTake(KEY, "k1", 499),
            "The key 'ci-build' may use 499 tokens per minute, and this request may need 500: shorten its "
            "prompt, or ask the operator of this gateway for more.",
            id="per minute",
        ),
        pytest.param(
            BudgetTake(TENANT, "t1", Window.DAY, DAY, limit=1),
            "The tenant 'acme' may use 1 token per day, and this request may need 500: shorten its prompt, "
            "or ask the operator of this gateway for more.",
            id="per day",
        ),
        pytest.param(
            BudgetTake(TENANT, "t1", Window.TOTAL, TOTAL, limit=499),
            "The tenant 'acme' may use 499 tokens in total, and this request may need 500: shorten its "
            "prompt, or ask the operator of this gateway for more.",
            id="in total",
        ),
    ],
)
def test_what_never_fits_is_no_matter_of_waiting(take, sentence):
    """A 400, so that no client tries for ever; whatever is used at the moment."""
    for used in (0, limits.limit_of(take)):
        assert facts(told(take, used=used, resets_at=MIDNIGHT)) == (RequestTooExpensive, sentence, [])


def test_what_just_fits_is_worth_waiting_for():
    """A need of exactly the limit."""
    assert isinstance(told(BucketTake(KEY, "k1", 500), used=1, retry_at=NOW + 1), RateLimited)


NEVER = [(b"retry-after", b"86400"), (b"x-should-retry", b"false")]


@pytest.mark.parametrize(
    ("take", "kind", "sentence"),
    [
        pytest.param(RateTake(KEY, "k1", 0), RateLimited, "may send no requests per minute", id="rpm"),
        pytest.param(BucketTake(KEY, "k1", 0), RateLimited, "may use no tokens per minute", id="tpm"),
        pytest.param(
            SlotTake(KEY, "k1", 0),
            RateLimited,
            "may have no requests running at the same time",
            id="concurrent",
        ),
        pytest.param(
            BudgetTake(KEY, "k1", Window.DAY, DAY, limit=0),
            InsufficientQuota,
            "may use no tokens per day",
            id="day",
        ),
        pytest.param(
            BudgetTake(KEY, "k1", Window.TOTAL, TOTAL, limit=0),
            InsufficientQuota,
            "may use no tokens in total",
            id="total",
        ),
    ],
)
def test_a_limit_of_0_denies(take, kind, sentence):
    """Only the operator can help: the limit's own 429, and no retry, not even when the window turns."""
    assert facts(told(take, resets_at=MIDNIGHT)) == (
        kind,
        f"The key 'ci-build' {sentence}; ask the operator of this gateway for more.",
        NEVER,
    )


@given(wait_s=st.floats(-5, 3600))
@example(wait_s=12.0)
def test_retry_after_is_whole_seconds_and_not_too_early(wait_s):
    """At least 1: 0 would make clients guess. At most a second more than needed."""
    error = told(RateTake(KEY, "k1", 30), retry_at=NOW + wait_s)

    assert error.retry_after_s is not None
    assert error.retry_after_s >= 1
    assert wait_s - 0.001 <= error.retry_after_s <= max(1, wait_s + 1)


def test_a_wait_of_whole_seconds_is_not_rounded_up():
    """Doubles of today's times are off by some hundred nanoseconds."""
    assert told(RateTake(KEY, "k1", 30), retry_at=NOW + 12.0000002).retry_after_s == 12


@pytest.mark.parametrize(
    ("take", "used", "reserved", "remaining"),
    [
        pytest.param(RateTake(KEY, "k1", 30), 10, 0, 20, id="a rate"),
        pytest.param(BudgetTake(KEY, "k1", Window.DAY, DAY, limit=100), 60, 30, 10, id="what runs is held"),
        pytest.param(BudgetTake(KEY, "k1", Window.DAY, DAY, limit=100), 90, 30, 0, id="never below 0"),
        pytest.param(BudgetTake(KEY, "k1", Window.DAY, DAY), 90, 30, None, id="without a limit"),
    ],
)
def test_what_remains(take, used, reserved, remaining):
    """Of a limit that was lowered, or overspent by a backend, nothing remains."""
    assert remaining_of(Standing(take, used, reserved, None)) == remaining


@pytest.mark.parametrize(
    ("take", "requests"),
    [
        pytest.param(RateTake(KEY, "k1", 60), 20, id="a rate counts requests"),
        pytest.param(SlotTake(KEY, "k1", 60), 20, id="so do slots"),
        pytest.param(BucketTake(KEY, "k1", 60), 2, id="a bucket counts tokens"),
        pytest.param(
            BudgetTake(KEY, "k1", Window.TOTAL, (Period("total", None),), 60), 2, id="so does a budget"
        ),
        pytest.param(BudgetTake(KEY, "k1", Window.TOTAL, (Period("total", None),)), None, id="no bound"),
    ],
)
def test_how_many_requests_are_left(take, requests):
    """Of nine tokens each, where forty are gone of sixty."""
    assert requests_left(Standing(take, 30, 10, None), tokens=9) == requests

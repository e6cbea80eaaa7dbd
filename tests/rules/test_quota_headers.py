"""Where a caller stands: the headers of an answer, and GET /v1/usage."""

import pytest

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Period,
    Plan,
    RateTake,
    Scope,
    SlotTake,
    Standing,
    Taken,
    Window,
    as_row,
)
from gateway.rules.quota_headers import PastRefusal, duration, headers_of_taken, usage_document

KEY, TENANT = Scope.KEY, Scope.TENANT
NOW = 1_795_450_800.0  # 2026-11-23T16:20:00Z
MIDNIGHT = 1_795_478_400.0
DAY = (Period("2026-11-23", MIDNIGHT), Period("2026-11-24", MIDNIGHT + 86_400))
MONTH_ENDS = 1_796_083_200.0
MONTH = (Period("2026-11", MONTH_ENDS), Period("2026-12", MONTH_ENDS + 31 * 86_400))
TOTAL = (Period("total", None),)

RATE = Standing(RateTake(KEY, "k1", 60), used=10, reserved=0, resets_at=NOW + 10)
BUCKET = Standing(BucketTake(KEY, "k1", 6_000), used=3_000, reserved=0, resets_at=NOW + 30)
SLOTS = Standing(SlotTake(KEY, "k1", 4), used=1, reserved=0, resets_at=None)
OF_DAY = Standing(BudgetTake(KEY, "k1", Window.DAY, DAY, 10_000), 2_000, 3_000, MIDNIGHT)
OF_MONTH = Standing(BudgetTake(TENANT, "t1", Window.MONTH, MONTH, 90_000), 20_000, 3_000, MONTH_ENDS)
OF_TOTAL = Standing(BudgetTake(TENANT, "t1", Window.TOTAL, TOTAL, 900_000), 20_000, 3_000, None)


def told(*standings: Standing, given_back: int | None = 0, spared: int = 0) -> dict[str, str]:
    takes, rows = tuple(one.take for one in standings), [as_row(one) for one in standings]
    plan = Plan("t1", "r1", takes, 0, 0, 15.0, 0, spared)
    headers = headers_of_taken(Taken(plan, 0, NOW, rows, ()), given_back)
    assert len({name for name, _ in headers}) == len(headers)
    return {name.decode(): value.decode() for name, value in headers}


def test_all_that_applies_is_told():
    """The names are OpenAI's, and in their manner for budgets; a total has no reset."""
    assert told(RATE, SLOTS, BUCKET, OF_DAY, OF_MONTH, OF_TOTAL) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "50",
        "x-ratelimit-reset-requests": "10s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "3000",
        "x-ratelimit-reset-tokens": "30s",
        "x-budget-limit-day": "10000",
        "x-budget-remaining-day": "5000",
        "x-budget-reset-day": "2026-11-24T00:00:00Z",
        "x-budget-limit-month": "90000",
        "x-budget-remaining-month": "67000",
        "x-budget-reset-month": "2026-12-01T00:00:00Z",
        "x-budget-limit-total": "900000",
        "x-budget-remaining-total": "877000",
    }


def test_what_has_no_limit_has_no_header():
    """A budget that only counts is nothing to keep to."""
    counted = Standing(BudgetTake(KEY, "k1", Window.DAY, DAY), 2_000, 3_000, MIDNIGHT)

    assert told(counted, SLOTS) == {}


@pytest.mark.parametrize(
    ("of_key", "of_tenant", "limit"),
    [
        pytest.param((30, 10, 10), (60, 10, 10), "30", id="the key has less left"),
        pytest.param((30, 10, 10), (60, 55, 55), "60", id="the tenant has less left, of more"),
        pytest.param((30, 10, 20), (60, 40, 40), "60", id="alike: what takes longer to come back"),
        pytest.param((30, 30, 60), (60, 61, 60), "30", id="overspent is nothing left, not less"),
    ],
)
def test_of_key_and_tenant_the_tighter_one_is_told(of_key, of_tenant, limit):
    """In whatever order they stand."""
    standings = [
        Standing(RateTake(scope, owner, per_minute), used, 0, NOW + reset_s)
        for scope, owner, (per_minute, used, reset_s) in ((KEY, "k1", of_key), (TENANT, "t1", of_tenant))
    ]

    assert told(*standings)["x-ratelimit-limit-requests"] == limit
    assert told(*reversed(standings)).keys() == told(*standings).keys()


def test_a_whole_answer_tells_what_it_gave_back():
    """Its true usage is known before its head: what it did not use is there for the next request."""
    headers = told(RATE, BUCKET, OF_DAY, given_back=1_000)

    assert headers["x-ratelimit-remaining-requests"] == "50"
    assert headers["x-ratelimit-remaining-tokens"] == "4000"
    assert headers["x-ratelimit-reset-tokens"] == "20s"
    assert headers["x-budget-remaining-day"] == "6000"


@pytest.mark.parametrize(
    ("given_back", "remaining", "reset"),
    [
        pytest.param(1_000, "3600", "24s", id="what it was spared was not taken, so it does not come back"),
        pytest.param(100, "2700", "33s", id="what was used of it is owed"),
        pytest.param(None, "3000", "30s", id="nobody knows yet"),
    ],
)
def test_a_bucket_that_was_spared_some_gets_back_less(given_back, remaining, reset):
    headers = told(BUCKET, given_back=given_back, spared=400)

    assert headers["x-ratelimit-remaining-tokens"] == remaining
    assert headers["x-ratelimit-reset-tokens"] == reset


def test_a_bucket_that_is_full_again_is_not_fuller():
    """It filled up while the answer was made: less is missing than is given back."""
    headers = told(BUCKET, given_back=5_000)

    assert headers["x-ratelimit-remaining-tokens"] == "6000"
    assert headers["x-ratelimit-reset-tokens"] == "0s"


def test_what_is_given_back_pays_an_overspent_budget_first():
    """The limit was lowered under running requests."""
    overspent = Standing(BudgetTake(KEY, "k1", Window.DAY, DAY, 4_000), 2_000, 3_000, MIDNIGHT)

    assert told(overspent)["x-budget-remaining-day"] == "0"
    assert told(overspent, given_back=1_500)["x-budget-remaining-day"] == "500"


def test_a_limit_of_0_has_headers_too():
    """A refusal can tell where its limit stands."""
    denied = Standing(BucketTake(KEY, "k1", 0), used=0, reserved=0, resets_at=None)

    assert told(denied) == {
        "x-ratelimit-limit-tokens": "0",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "0s",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3.0, "0s"),
        (0.2, "1s"),
        (1, "1s"),
        (12.0000002, "12s"),
        (59.5, "1m0s"),
        (360, "6m0s"),
        (3_599.2, "1h0m0s"),
        (3_723, "1h2m3s"),
        (360_000, "100h0m0s"),
    ],
)
def test_a_duration_is_written_as_go_writes_it(seconds, text):
    """Whole seconds, never too early."""
    assert duration(seconds) == text


def test_the_usage_document():
    """Each limit and budget of the caller, whichever it is on, and what was refused lately."""
    refusal = PastRefusal(NOW - 60, "01JD", 429, "rate_limit_exceeded", "tiny")
    counted = Standing(BudgetTake(KEY, "k1", Window.TOTAL, TOTAL), 7_000, 0, None)

    document = usage_document(
        [RATE, SLOTS, BUCKET, OF_DAY, counted], [refusal], key="ci-build", tenant="acme", now=NOW
    )

    rows = ("scope", "unit", "window", "limit", "used", "reserved", "remaining", "resets_at")
    assert document == {
        "object": "usage",
        "key": "ci-build",
        "tenant": "acme",
        "as_of": "2026-11-23T16:20:00Z",
        "prompts_kept_for_s": None,
        "limits": [
            dict(zip(rows, row, strict=True))
            for row in (
                ("key", "requests", "minute", 60, 10, 0, 50, "2026-11-23T16:20:10Z"),
                ("key", "requests", "concurrent", 4, 1, 0, 3, None),
                ("key", "tokens", "minute", 6_000, 3_000, 0, 3_000, "2026-11-23T16:20:30Z"),
            )
        ],
        "budgets": [
            dict(zip(rows, row, strict=True))
            for row in (
                ("key", "tokens", "day", 10_000, 2_000, 3_000, 5_000, "2026-11-24T00:00:00Z"),
                ("key", "tokens", "total", None, 7_000, 0, None, None),
            )
        ],
        "recent_refusals": [
            {
                "at": "2026-11-23T16:19:00Z",
                "request_id": "01JD",
                "status": 429,
                "code": "rate_limit_exceeded",
                "model": "tiny",
            }
        ],
    }


def test_a_caller_is_told_that_its_prompts_are_kept():
    document = usage_document([], [], key="ci-build", tenant="acme", now=NOW, log_prompts_s=3600)

    assert document["prompts_kept_for_s"] == 3600


def test_a_caller_without_limits_has_a_usage_document():
    """Empty lists, not missing ones."""
    document = usage_document([], [], key="ci-build", tenant="acme", now=NOW)

    assert (document["limits"], document["budgets"], document["recent_refusals"]) == ([], [], [])

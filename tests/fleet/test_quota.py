"""What callers are told of limits and budgets is what every replica holds them to, within a second."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import httpx
import pytest

from gateway.accounting import Policy
from tests.engines import wait_until
from tests.fleet.callers import Load
from tests.fleet.counted_model import MODEL, CountedModel, Order
from tests.fleet.fleet import Customer, Fleet
from tests.fleet.launcher import AHEAD
from tests.fleet.victims import Launcher, Victim, all_end, all_listen
from tests.servers import RedisServer

NEPAL: Final = ZoneInfo("Asia/Kathmandu")  # its days begin at 18:15 UTC


def ask(url: str, customer: Customer, order: Order) -> httpx.Response:
    """A whole answer."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": order.prompt}],
        "max_tokens": order.tokens,
    }
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=_key(customer), timeout=30)


def usage(url: str, customer: Customer) -> dict[tuple[str, str, str], dict[str, Any]]:
    """GET /v1/usage, by scope, unit and window."""
    answer = httpx.get(f"{url}/v1/usage", headers=_key(customer), timeout=10)
    assert answer.status_code == 200
    rows = answer.json()["limits"] + answer.json()["budgets"]
    return {(row["scope"], row["unit"], row["window"]): row for row in rows}


def _key(customer: Customer) -> dict[str, str]:
    return {"Authorization": f"Bearer {customer.key}"}


def seconds(duration: str) -> float:
    """Of `6m0s` or `1s`."""
    minutes, _, rest = duration.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s"))


def seconds_until(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp() - time.time()


def test_headers_tell_what_the_next_replica_holds(fleet: Fleet):
    policy = Policy(rpm=60, tpm=30_000, daily_tokens=5_000, monthly_tokens=6_000, total_tokens=7_000)
    customer = fleet.customer("headers", policy)
    for number in range(6):
        told = ask(fleet.urls[number % 2], customer, Order(tokens=50)).headers
        found = usage(fleet.urls[(number + 1) % 2], customer)

        for window in ("day", "month", "total"):
            row = found["tenant", "tokens", window]
            assert int(told[f"x-budget-remaining-{window}"]) == row["remaining"] == row["limit"] - row["used"]
            assert row["reserved"] == 0
            assert told.get(f"x-budget-reset-{window}") == row["resets_at"]
        for unit in ("requests", "tokens"):  # these fill up by and by
            row = found["tenant", unit, "minute"]
            per_s = row["limit"] / 60
            assert 0 <= row["remaining"] - int(told[f"x-ratelimit-remaining-{unit}"]) <= per_s + 1
            assert abs(seconds(told[f"x-ratelimit-reset-{unit}"]) - seconds_until(row["resets_at"])) < 2


def test_what_runs_is_seen_by_every_replica(fleet: Fleet):
    """While it runs, and that it has ended."""
    customer = fleet.customer("running", Policy(concurrent=5, daily_tokens=50_000))
    order = Order(tokens=20, gap_s=0.1, label=customer.id)

    def standing(url: str) -> tuple[int, int, int]:
        rows = usage(url, customer)
        day = rows["key", "tokens", "day"]
        return rows["tenant", "requests", "concurrent"]["used"], day["reserved"], day["used"]

    with Load(fleet.urls, customer.key, order, callers=4, once=True) as load:
        assert wait_until(lambda: len(fleet.model.labelled(customer.id)) == 4, 10)
        during = {standing(url) for url in fleet.urls}
    after = {standing(url) for url in fleet.urls}

    ((running, reserved, used),) = during
    assert (running, used) == (4, 0)
    assert reserved >= 4 * order.tokens
    assert after == {(0, 0, sum(one.tokens for one in load.told))}


def test_retry_after_is_when_it_is_worth_it(fleet: Fleet):
    """Neither sooner nor later, at either replica."""
    customer = fleet.customer("rate", Policy(rpm=20))
    answers = [ask(fleet.urls[number % 2], customer, Order(tokens=1)) for number in range(20)]
    while answers[-1].status_code == 200:  # a slow machine has some more
        answers.append(ask(fleet.urls[0], customer, Order(tokens=1)))
    wait_s = int(answers[-1].headers["retry-after"])
    time.sleep(wait_s)
    again = [ask(url, customer, Order(tokens=1)).status_code for url in fleet.urls]

    assert 20 < len(answers) < 30
    assert 1 <= wait_s <= 3
    assert again == [200, 429]


# ── the window turns ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def future(
    tmp_path: Path, model: CountedModel, settings: dict[str, str]
) -> Iterator[tuple[Fleet, RedisServer, list[Victim]]]:
    """Two replicas over a Redis of their own, whose clocks can be set ahead."""
    with RedisServer() as redis:
        redis.ask("SET", "ahead_us", 0)
        fleet = Fleet(tmp_path, model, {**settings, "REDIS_URL": redis.url})
        with Launcher.start(fleet.settings) as launcher:
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                (tmp_path / name / AHEAD).write_text("0")
            replicas = [launcher.launch(tmp_path / name, "in the future") for name in ("one", "two")]
            all_listen(replicas)
            yield fleet, redis, replicas
            all_end(replicas)


def test_budgets_begin_anew_at_midnight_of_the_tenants_zone(
    future: tuple[Fleet, RedisServer, list[Victim]],
):
    """After the last day of a month: its day and its month. What was admitted before is charged before."""
    fleet, redis, replicas = future
    urls = [replica.url for replica in replicas]
    policy = Policy(daily_tokens=3_000, monthly_tokens=5_000)
    greedy, late = fleet.customers(["greedy", "late"], policy, time_zone=str(NEPAL))
    first = datetime.now(NEPAL).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    midnight = (first + timedelta(days=32)).replace(day=1)
    ahead_s = midnight.timestamp() - time.time() - 6
    redis.ask("SET", "ahead_us", round(ahead_s * 1e6))
    for replica in replicas:
        (replica.directory / AHEAD).write_text(f"{ahead_s}")

    def left_s() -> float:
        return midnight.timestamp() - (time.time() + ahead_s)

    over_midnight = Order(tokens=9, gap_s=1.0)
    with Load(urls, late.key, over_midnight, callers=1, once=True) as load:
        spent = [ask(url, greedy, Order(tokens=3_000)).status_code for url in urls]
        refused, refused_at = ask(urls[0], greedy, Order(tokens=3_000)), left_s()
        time.sleep(max(0.0, left_s() - 0.5))
        still = ask(urls[1], greedy, Order(tokens=3_000)).status_code
        is_before = left_s() > 0
        time.sleep(max(0.0, left_s() + 0.1))
        anew = [ask(url, greedy, Order(tokens=5)) for url in urls]
    of_greedy, of_late = ([usage(url, each) for url in urls] for each in (greedy, late))

    assert is_before, "the machine was too slow"
    assert (spent[0], refused.status_code, still) == (200, 429, 429)
    assert abs(int(refused.headers["retry-after"]) - refused_at) < 1.5
    assert datetime.fromisoformat(refused.headers["x-budget-reset-day"]) == midnight
    assert [one.status_code for one in anew] == [200, 200]
    used = sum(one.json()["usage"]["total_tokens"] for one in anew)
    for found in of_greedy:
        assert [found["tenant", "tokens", window]["used"] for window in ("day", "month")] == [used, used]
        assert found["tenant", "tokens", "total"]["used"] > used
    for found in of_late:
        rows = [found["tenant", "tokens", window] for window in ("day", "month", "total")]
        assert [(row["used"], row["reserved"]) for row in rows] == [(0, 0), (0, 0), (load.told[0].tokens, 0)]
    eve = midnight - timedelta(days=1)
    charged = [{"day": f"{eve:%Y-%m-%d}", "month": f"{eve:%Y-%m}"}]
    entries = "SELECT day, month FROM ledger WHERE tenant_id = :id"
    assert wait_until(lambda: fleet.rows(entries, id=late.id) == charged, 5)

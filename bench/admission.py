"""What admission costs, by the number of keys that the counters know: it should not depend on it.

    python -m bench.admission [--keys 1 1000 100000] [--rounds 4000]

A tenant of each size in one store, in this process and in a real Redis; each in turn is asked for a take
with every limit and budget on, and for its settlement. The sizes take turns: what disturbs one disturbs all.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import count

from gateway.accounting import Plan, Policy, Taken
from gateway.ports import Counters
from gateway.redis_address import redis_address
from gateway.resources import SystemClock
from gateway.rules.plans import takes_of
from gateway.rules.windows import zone_of
from gateway.state.local_counters import LocalCounters
from gateway.state.redis_client import RedisClient
from gateway.state.redis_counters import RedisCounters
from tests.servers import RedisServer

EVERYTHING = Policy(10**9, 10**12, 10**6, 10**12, 10**12, 10**12)
_ABREAST = 200
_ids = count()


def plan(tenant: str, key: str) -> Plan:
    takes = takes_of(EVERYTHING, EVERYTHING, tenant, key, now=time.time(), zone=zone_of("UTC"))
    return Plan(tenant, f"r{next(_ids)}", takes, tokens_needed=50, tokens_wanted=100, lease_s=15.0, epoch=0)


async def admit(counters: Counters, asked: Plan) -> None:
    verdict = await counters.take(asked)
    assert isinstance(verdict, Taken), verdict
    await counters.settle(asked.tenant_id, asked.reservation_id, 60)


async def fill(counters: Counters, tenant: str, keys: int) -> None:
    """Let every key be known: each has asked once."""
    await counters.restore(tenant, [], [], 15.0)
    for first in range(0, keys, _ABREAST):
        some = range(first, min(keys, first + _ABREAST))
        await asyncio.gather(*(admit(counters, plan(tenant, f"k{number}")) for number in some))


async def measured(counters: Counters, sizes: Sequence[int], rounds: int) -> dict[int, list[float]]:
    """Microseconds of a take and its settlement, by the number of keys."""
    dice = random.Random(1)
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for size in sizes:
        await fill(counters, f"t{size}", size)
    for _ in range(rounds):
        for size in sizes:
            asked = plan(f"t{size}", f"k{dice.randrange(size)}")
            began = time.perf_counter()
            await admit(counters, asked)
            found[size].append((time.perf_counter() - began) * 1e6)
    return found


def rows(store: str, found: dict[int, list[float]]) -> Iterator[dict[str, object]]:
    for keys, times in found.items():
        quantiles = statistics.quantiles(times, n=100)
        yield {
            "store": store,
            "keys": keys,
            "rounds": len(times),
            "median_us": round(statistics.median(times), 1),
            "p99_us": round(quantiles[98], 1),
        }


async def main(sizes: Sequence[int], rounds: int) -> list[dict[str, object]]:
    clock = SystemClock()
    found = list(rows("in process", await measured(LocalCounters(clock), sizes, rounds)))
    with RedisServer() as server:
        # Filling is no request: nobody waits for it with a deadline.
        client = RedisClient(redis_address(server.url), deadline_s=10.0)
        async with RedisCounters(client, clock).opened() as counters:
            found += rows("Redis", await measured(counters, sizes, rounds))
    return found


def table(found: list[dict[str, object]]) -> str:
    lines = [f"{'Store':<12}{'Keys':>9}{'Rounds':>9}{'Median µs':>12}{'p99 µs':>10}"]
    for row in found:
        lines.append(
            f"{row['store']:<12}{row['keys']:>9,}{row['rounds']:>9,}{row['median_us']:>12}{row['p99_us']:>10}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What admission costs, by the number of keys.")
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=4_000)
    parser.add_argument("--json", action="store_true", help="one object a row")
    given = parser.parse_args()
    measured_rows = asyncio.run(main(given.keys, given.rounds))
    print(json.dumps(measured_rows, indent=1) if given.json else table(measured_rows))

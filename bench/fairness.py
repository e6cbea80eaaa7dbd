"""What fair shares cost, and what they are worth: a real llama.cpp with two slots, in front of it a flood.

    python -m bench.fairness [--rounds 5] [--flood 50] [--single 5] [--tokens 600]

One tenant sends a flood at once, another one request after the other. Once in the gateway's queue
(`slots=2`), once first come, first served: without `slots`, the engine queues by itself. Both gateways stand
before the same engine and take turns, so that what disturbs one disturbs both.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
from attrs import define, evolve, field

from gateway.demo.engine import Engine, scripted
from gateway.demo.scripts import ENDLESS
from tests.gateways import Gateway

SLOTS = 2
_TIMEOUT_S = 300.0


@define
class Way:
    """One of both, and what was measured: seconds of the whole, and of each request of the single sender."""

    name: str
    gateway: Gateway
    many: str
    single: str
    whole_s: list[float] = field(factory=list)
    single_s: list[float] = field(factory=list)

    @classmethod
    def started(cls, name: str, folder: Path, backend: str) -> "Way":
        gateway = Gateway(folder / name, OLLAMA_BACKENDS=backend, GATEWAY_QUEUE_WAIT_S=f"{_TIMEOUT_S}")
        gateway.make_first_key()
        many, single = (_key_of(gateway, tenant) for tenant in ("many", "single"))
        return cls(name, gateway.start(), many, single)

    async def run(self, flood: int, single: int, tokens: int) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self.gateway.url, timeout=_TIMEOUT_S, limits=limits, trust_env=False
        ) as client:

            async def ask(key: str) -> float:
                body = {
                    "model": "endless",
                    "max_tokens": tokens,
                    "messages": [{"role": "user", "content": "Go"}],
                }
                headers = {"Authorization": f"Bearer {key}"}
                began = time.perf_counter()
                answered = await client.post("/v1/chat/completions", json=body, headers=headers)
                assert answered.status_code == 200, answered.text
                return time.perf_counter() - began

            began = time.perf_counter()
            flooding = [asyncio.create_task(ask(self.many)) for _ in range(flood)]
            await asyncio.sleep(0.05)
            self.single_s += [await ask(self.single) for _ in range(single)]
            await asyncio.gather(*flooding)
            self.whole_s.append(time.perf_counter() - began)


def _key_of(gateway: Gateway, tenant: str) -> str:
    gateway.json("create-tenant", "--name", tenant)
    return str(gateway.json("create-key", "--tenant", tenant, "--name", "only")["key"])


def measured(engine: Engine, folder: Path, given: argparse.Namespace) -> list[Way]:
    with ExitStack() as ending:
        ways = []
        for name, options in (("fair shares", f";slots={SLOTS}"), ("first come, first served", "")):
            ways.append(Way.started(name, folder, f"one={engine.url};kind=openai{options}"))
            ending.callback(ways[-1].gateway.stop)
        for number in range(given.rounds):
            for way in ways if number % 2 else reversed(ways):
                asyncio.run(way.run(given.flood, given.single, given.tokens))
    return ways


def row(way: Way) -> dict[str, object]:
    return {
        "queue": way.name,
        "rounds": len(way.whole_s),
        "whole_s": round(statistics.median(way.whole_s), 2),
        "single_median_s": round(statistics.median(way.single_s), 2),
        "single_longest_s": round(max(way.single_s), 2),
    }


def table(rows: Sequence[dict[str, object]]) -> str:
    lines = [f"{'Queue':<26}{'Rounds':>8}{'All done, s':>13}{'Single, median s':>18}{'longest s':>11}"]
    lines += [
        f"{one['queue']:<26}{one['rounds']:>8}{one['whole_s']:>13}{one['single_median_s']:>18}"
        f"{one['single_longest_s']:>11}"
        for one in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What fair shares cost, and what they are worth.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flood", type=int, default=50)
    parser.add_argument("--single", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--json", action="store_true", help="one object a row")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        engine = scripted(ENDLESS, place, place / "engine.log")
        engine.serving = evolve(engine.serving, slots=SLOTS)
        with engine:
            found = [row(way) for way in measured(engine, place, wanted)]
    print(json.dumps(found, indent=1) if wanted.json else table(found))

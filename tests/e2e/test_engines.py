"""Two real engines with the same model: one dies, and the other goes on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.demo.engine import Engine, scripted
from gateway.demo.scripts import GREETING
from tests.engines import wait_until
from tests.gateways import Gateway

SOON = 60.0
CALLERS = 8


@pytest.fixture
def engines(models_dir: Path, tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    both = tuple(scripted(GREETING, models_dir, tmp_path / f"engine-{number}.log") for number in (1, 2))
    try:
        for one in both:
            one.start()
        yield both[0], both[1]
    finally:
        for one in both:
            one.stop()


@pytest.fixture
def gateway_before_both(tmp_path: Path, engines: tuple[Engine, Engine]) -> Iterator[Gateway]:
    one, other = engines
    backends = f"one={one.url};kind=openai;slots=2,other={other.url};kind=openai;slots=2"
    gateway = Gateway(tmp_path / "gateway", OLLAMA_BACKENDS=backends)
    gateway.make_first_key()
    try:
        yield gateway.start()
    finally:
        gateway.stop()


def test_one_engine_dies_and_the_other_goes_on(
    gateway_before_both: Gateway, engines: tuple[Engine, Engine]
) -> None:
    """Both work; with the death of one, what it was at work on is told as failed, and all that comes later is
    answered.
    """
    gateway = gateway_before_both
    body = {
        "model": engines[0].serving.alias,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
    }

    async def run() -> tuple[list[int], list[int]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=gateway.url, headers=gateway.headers, timeout=SOON, limits=limits, trust_env=False
        ) as client:

            async def ask() -> int:
                return (await client.post("/api/chat", json=body)).status_code

            before = await asyncio.gather(*(ask() for _ in range(4 * CALLERS)))
            dying = [asyncio.create_task(ask()) for _ in range(CALLERS)]
            await asyncio.to_thread(engines[0].stop)
            told = await asyncio.gather(*dying)
            after = await asyncio.gather(*(ask() for _ in range(2 * CALLERS)))
            assert set(told) <= {200, 502}
            return list(before), list(after)

    before, after = asyncio.run(run())

    assert set(before) == {200}
    assert set(after) == {200}
    assert wait_until(lambda: len(gateway.rows()) >= 7 * CALLERS, SOON)
    served = {row["backend"] for row in gateway.rows("status = 200")}
    assert served == {"one", "other"}
    assert {row["backend"] for row in gateway.rows("status = 200")[-2 * CALLERS :]} == {"other"}

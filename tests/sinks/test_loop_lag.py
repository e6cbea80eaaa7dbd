"""What blocks the event loop is seen."""

import asyncio
import time

from gateway.sinks.loop_lag import LoopLag


async def test_a_blocked_loop_is_told():
    """How long it could not wake anybody."""
    told: list[float] = []
    woken = asyncio.Event()

    def observe(seconds: float) -> None:
        told.append(seconds)
        woken.set()

    lag = LoopLag(observe, every_s=0.001)
    await lag.start()
    await asyncio.wait_for(woken.wait(), 30)
    woken.clear()
    time.sleep(0.2)  # noqa: ASYNC251 - this is what it is to notice
    await asyncio.wait_for(woken.wait(), 30)
    await lag.stop()

    assert max(told) >= 0.15

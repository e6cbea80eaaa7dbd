"""A deadline that moves with each sign of life."""

import asyncio

from gateway.patience import Patience


async def test_silence_ends_it():
    over = asyncio.Event()

    patience = Patience(0.01, over.set)
    await over.wait()

    assert patience.is_over


async def test_a_sign_of_life_moves_the_deadline():
    """The timer fires at the old deadline, sees that it has moved, and waits for the new one."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    started = loop.time()

    patience = Patience(0.02, over.set)
    patience.renew(0.06)
    await over.wait()

    assert loop.time() - started >= 0.06


async def test_a_shorter_patience_counts_from_now():
    """After the first byte a gap is judged more strictly than the first byte was."""
    over = asyncio.Event()

    patience = Patience(3600, over.set)
    patience.renew(0.01)

    async with asyncio.timeout(5):
        await over.wait()


async def test_an_ended_patience_is_never_over():
    fired = []
    patience = Patience(0.001, lambda: fired.append(1))

    patience.end()
    await asyncio.sleep(0.005)

    assert not fired
    assert not patience.is_over


async def test_a_held_patience_waits(monkeypatch):
    """Whoever is waited for meanwhile, it is not the one whose signs of life count."""
    monkeypatch.setattr("gateway.patience._HELD_CHECK_S", 0.005)
    over = asyncio.Event()
    patience = Patience(0.005, over.set)

    patience.hold()
    await asyncio.sleep(0.03)
    assert not patience.is_over
    patience.renew(0.005)

    async with asyncio.timeout(5):
        await over.wait()

"""Gateways that share counters: who is alive, and up to when the ledger has what it spooled."""

from gateway.storage import replicas as module
from gateway.storage.replicas import Replicas


async def test_others_are_behind_until_they_report_a_later_time(database):
    replicas = Replicas(database)
    await replicas.report("a", await replicas.now())
    since = await replicas.now() + 0.001
    before = await replicas.behind(since)
    await replicas.report("a", since)
    await replicas.report("b", since + 1)
    at_the_same_time = await replicas.behind(since)
    await replicas.report("a", since + 0.001)

    assert before == at_the_same_time == ["a"]
    assert await replicas.behind(since) == []


async def test_nobody_waits_for_who_is_gone(database, monkeypatch):
    """Whether it said so, or was not heard of for long."""
    replicas = Replicas(database)
    for name in ("stopped", "killed"):
        await replicas.report(name, 0.0)

    await replicas.remove("stopped")
    alive = await replicas.behind(since=1.0)
    monkeypatch.setattr(module, "LIVE_S", -1.0)

    assert alive == ["killed"]
    assert await replicas.behind(since=1.0) == []


async def test_the_dead_are_forgotten_in_the_end(database, monkeypatch):
    replicas = Replicas(database)
    await replicas.report("killed", 0.0)
    monkeypatch.setattr(module, "_FORGOTTEN_S", -1.0)

    await replicas.remove("another")

    assert await replicas.behind(since=1.0) == []


async def test_the_clock_is_that_of_the_database(database):
    replicas = Replicas(database)
    first = await replicas.now()

    assert 1_700_000_000 < first <= await replicas.now()

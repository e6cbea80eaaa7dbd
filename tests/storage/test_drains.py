"""Backends that are taken out of service, in the database."""

from gateway.storage.actions import Actions, Actor
from gateway.storage.drains import Drains
from gateway.storage.keys import Keys


async def test_a_backend_is_drained_until_it_is_taken_back(database):
    """Again changes nothing."""
    drains = Drains(database)

    assert [await drains.begin("a"), await drains.begin("b"), await drains.begin("a")] == [True, True, False]
    assert await drains.all() == {"a", "b"}
    assert [await drains.end("a"), await drains.end("a")] == [True, False]
    assert await drains.all() == {"b"}


async def test_every_change_shows_in_the_revision_and_is_noted(database):
    """Running gateways poll it; and operators see who did it."""
    drains, keys = Drains(database, Actor("ann", "box")), Keys(database)
    before = await keys.revision()

    await drains.begin("a")
    await drains.begin("a")
    await drains.end("a")

    assert await keys.revision() == before + 2
    noted = await Actions(database).latest(since=0.0, limit=9)
    assert [(one.actor.os_user, one.action, one.changes) for one in noted] == [
        ("ann", "drain_backend", {"a": {"before": False, "after": True}}),
        ("ann", "undrain_backend", {"a": {"before": True, "after": False}}),
    ]

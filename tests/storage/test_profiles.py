"""Profiles in the database."""

import pytest
from attrs import evolve

from gateway.formats.chat import Sampling
from gateway.formats.profiles import PhaseTimeouts, Profile
from gateway.storage.actions import Actions, Actor
from gateway.storage.keys import Keys
from gateway.storage.profiles import Profiles
from gateway.storage.refusals import NoSuchProfile

FULL = Profile(
    "Qwen3-32k",
    "qwen3:8b",
    1000.5,
    Sampling(num_ctx=32_768, stop=("a", "b")),
    Sampling(temperature=0.25),
    40_000,
    2_000,
    86_400.0,
    PhaseTimeouts(1.5, 2.5, 3.5),
)
BARE = Profile("careful", "llama3:latest", 5.0)


@pytest.fixture
async def profiles(database):
    profiles = Profiles(database)
    await profiles.set(FULL)
    await profiles.set(BARE)
    return profiles


async def test_profiles_are_read_as_they_were_kept(profiles):
    """By canonical name, in its order."""
    assert list((await profiles.all()).items()) == [("careful:latest", BARE), ("qwen3-32k:latest", FULL)]


async def test_a_profile_takes_the_place_of_the_one_of_its_name(profiles):
    """In whatever spelling; as a whole."""
    new = evolve(BARE, name="QWEN3-32k:latest", created_at=FULL.created_at)

    assert await profiles.set(new) == FULL
    assert (await profiles.all())["qwen3-32k:latest"] == new


async def test_a_profile_is_removed_by_its_canonical_name(profiles):
    assert await profiles.remove("careful:latest") == BARE
    assert list(await profiles.all()) == ["qwen3-32k:latest"]
    with pytest.raises(NoSuchProfile, match=r"There is no profile 'qwen3-32'; did you mean 'Qwen3-32k'\?"):
        await profiles.remove("qwen3-32:latest")


async def test_who_changes_a_profile_is_noted(database):
    """With what differs; what changes nothing is none."""
    profiles = Profiles(database, Actor("ann", "box"))
    await profiles.set(BARE)
    await profiles.set(BARE)
    await profiles.set(evolve(BARE, model="other:latest"))
    await profiles.remove("careful:latest")

    noted = await Actions(database).latest(since=0.0, limit=9)

    assert [(one.actor.os_user, one.action) for one in noted] == [
        ("ann", "set_model"),
        ("ann", "set_model"),
        ("ann", "remove_model"),
    ]
    assert noted[1].changes == {
        "name": {"before": "careful", "after": "careful"},
        "model": {"before": "llama3:latest", "after": "other:latest"},
    }


async def test_every_change_shows_in_the_revision(profiles, database):
    """Running gateways poll it."""
    keys, seen = Keys(database), []
    for change in (profiles.set(BARE), profiles.remove("careful:latest"), profiles.set(BARE)):
        before = await keys.revision()
        await change
        seen.append(await keys.revision() - before)

    assert seen == [1, 1, 1]
